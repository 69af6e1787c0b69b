"""SQL that a platform or an extension brings: `supabase/` and `extensions/`."""
