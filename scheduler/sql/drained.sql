-- Whether the dispatcher with instance id $1 (text) is to have no shards.
select exists (
    select from controls where partition = 0 and kind = 'drained' and subject = $1 and active
) as drained
