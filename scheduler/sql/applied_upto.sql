-- How far each partition of topic $1 has been applied.
select partition, last_offset
from ingested_offsets
where topic = $1
