create procedure private.age_out(p_batch integer) language plpgsql as $$
begin
  update public.parcels set state = 'lost' where state = 'out' and id <= p_batch;
  commit;
end $$;
call private.age_out(0);
