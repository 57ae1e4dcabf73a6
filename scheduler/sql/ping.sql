-- One real request.
select 1
