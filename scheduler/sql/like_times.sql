-- Of several rows of one post, grouped: when its likes count for the cap, bigint[] (ms), null for
-- none. Those that are planned or were sent, and the earlier attempts of those that were retried,
-- whose times stand in the history only. One that waited and was cancelled after it was due may have
-- been sent just before: whether it was is known only when that has been projected. A minute is for
-- the clocks, since that of Redis says when it is due.
    array_agg((extract(epoch from scheduled_for) * 1000)::bigint) filter (
        where engagement_type = 'like'
            and scheduled_for is not null
            and (
                status not in ('pending', 'cancelled', 'expired')
                or status = 'cancelled' and (
                    dispatched_at is not null
                    or (command_offset is not null or result_offset is not null)
                    and scheduled_for <= updated_at + interval '1 minute'
                )
            )
    )
    || (
        select array_agg((extract(epoch from (failure ->> 'due')::timestamptz) * 1000)::bigint)
        from
            unnest(
                array_agg(failures) filter (where engagement_type = 'like' and failures is not null)
            ) as history,
            jsonb_array_elements(history) as failure
        where failure ? 'due'
    )
