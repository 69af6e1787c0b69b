alter type public.member_role add value if not exists 'helper' after 'member';
update public.profiles set role = 'helper' where role = 'guest' and full_name = 'Helper';
