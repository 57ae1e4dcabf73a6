-- How far topic $1, partition $2 has been applied; no row when not at all.
select last_offset
from ingested_offsets
where topic = $1 and partition = $2
