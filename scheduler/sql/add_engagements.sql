-- Add $2 to the engagements of member $1; one row: the new number.
select increment_member_engagement($1, $2) as engagements
