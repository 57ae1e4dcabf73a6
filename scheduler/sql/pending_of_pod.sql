-- A page of the rows of pod $6 that are pending and due; the rest as in pending_rows.sql.
--@include pending_rows.sql
    and pod_id = $6
--@include pending_order.sql
