-- How far each topic of partition $1 has been applied.
select topic, last_offset
from ingested_offsets
where partition = $1
