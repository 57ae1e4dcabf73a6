-- Of the next $2 posts from $1 (text) on that retention has noted something of: forget those of
-- which nothing was removed in the last $3 days. One row: `last`, the last post looked at, null
-- behind the end. What somebody else holds is left for another time.
with
    page as materialized (
        select post_id, pruned_at
        from pruned_posts
        where post_id >= $1
        order by post_id
        limit $2
    ),
    old as materialized (
        select post.post_id
        from page
        join pruned_posts as post using (post_id)
        where page.pruned_at < now() - $3::double precision * interval '1 day'
            and post.pruned_at = page.pruned_at
        for update of post skip locked
    ),
    forgotten as (
        delete from pruned_posts as post
        using old
        where post.post_id = old.post_id
    )
select max(post_id) as last
from page
