-- The generation of the wheel that was last begun for topic $1, partition $2; null or no row if none was.
select wheel_gen
from ingested_offsets
where topic = $1 and partition = $2
