-- Which wheel a shard has. Whoever builds one anew says so first: a command that has set timers aside in
-- the one before changes nothing any more.

alter table ingested_offsets add column wheel_gen text collate "C";
comment on column ingested_offsets.wheel_gen is
    'Generation of the wheel that was last begun for this partition; null for one built before this column was.';
