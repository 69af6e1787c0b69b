create extension if not exists pgmq;
select pgmq.create('deliveries');
create or replace function public.take_delivery() returns jsonb language sql security definer set search_path = '' as $$
  select message from pgmq.pop('deliveries')
$$;
select pgmq.send('deliveries', '{"parcel": 1}'::jsonb);
