-- Those behind the one that is due at $3 (µs, null: at no time) and has id $4, to be included.
    and (
        $4::uuid is null
        or case
            when $3::bigint is null then scheduled_for is null and id < $4
            else
                scheduled_for is null
                or scheduled_for < timestamptz 'epoch' + $3 * interval '1 microsecond'
                or scheduled_for = timestamptz 'epoch' + $3 * interval '1 microsecond' and id < $4
        end
    )
