-- How far each topic of each partition has been applied.
select topic, partition, last_offset
from ingested_offsets
