-- The compare-and-swap of a watermark, to be included: `moved` has one row if the watermark of
-- topic $1, partition $2 was at $3 and now is at $4, and none if it was elsewhere. Whatever else
-- the statement writes must depend on `moved`: then both happen, or neither. The statement says in
-- `permitted`, one row, whether it may happen at all (`yes`, a boolean), by which controls it was
-- decided (`decided_by`, a bigint: the offset of the last command that had changed them), and for which
-- wheel (`wheel_gen`, a text); null where they do not matter. Where others have come since, the
-- watermark does not move either.
-- Two branches, of which $3 chooses one. Only a partition that has never been applied (-1) may
-- lack its row: the second makes it, or swaps where somebody else has made it first. Either waits
-- for a rival's commit and then looks at what that has left.
    followed as (
        update ingested_offsets
        set last_offset = $4, updated_at = now()
        where topic = $1 and partition = $2 and last_offset = $3 and $3 <> -1
            and (select yes from permitted)
            and controls = coalesce((select decided_by from permitted), controls)
            and (
                wheel_gen is null
                or wheel_gen = coalesce((select permitted.wheel_gen from permitted), wheel_gen)
            )
        returning 1
    ),
    begun as (
        insert into ingested_offsets as o (topic, partition, last_offset)
        select $1, $2, $4
        where $3 = -1 and (select yes from permitted)
        on conflict (topic, partition)
            do update set last_offset = excluded.last_offset, updated_at = now()
            where o.last_offset = -1
                and o.controls = coalesce((select decided_by from permitted), o.controls)
                and (
                    o.wheel_gen is null
                    or o.wheel_gen = coalesce(
                        (select permitted.wheel_gen from permitted), o.wheel_gen
                    )
                )
        returning 1
    ),
    moved as (
        select from followed
        union all
        select from begun
    )
