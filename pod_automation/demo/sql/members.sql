-- How many engagements each of the members $1 has carried out.
select member_id, engagement_count
from member_engagement
where member_id = any ($1)
