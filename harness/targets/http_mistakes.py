"""Answers that show a mistake of set-up, and what to do about each."""

from __future__ import annotations

from harness.contracts.contract import Effect, Function, Outcome
from harness.errors import HarnessError
from harness.targets.http_answers import NOT_JSON


def explain(outcome: Outcome, status: int, url: str, function: Function) -> None:
    """Raise HarnessError where an outcome shows a mistake of set-up; an error of the function itself is none."""
    if outcome.effect not in (Effect.FAILED, Effect.IN_DOUBT):
        return
    code, detail = outcome.code or "", outcome.detail or ""
    tried = f"POST {url}/rpc/{function.name.rpartition('.')[2]}: {status or 'no status'} {code}: {detail}"
    for prefix, what, next_step in _MISTAKES:
        if f"{code}: {detail}".startswith(prefix):
            raise HarnessError(what, tried=tried, next_step=next_step)


_WRONG_URL = (
    "check the address: a Supabase project's ends in /rest/v1, PostgREST's own has no path; it may need https, and a "
    "redirect is not followed because a call is never sent twice"
)
_MISTAKES = (
    ("PGRST202", "PostgREST does not expose the function.",
     "reload the schema cache if it is there (NOTIFY pgrst, 'reload schema'), or expose its schema (db-schemas)"),
    ("PGRST106", "PostgREST does not expose the function's schema.",
     "add the schema to db-schemas (in Supabase Settings > API > Exposed schemas)"),
    ("PGRST300", "PostgREST has no JWT secret.", "set jwt-secret"),
    ("PGRST301", "The token is not accepted.", "use a token that has not expired, signed with this server's secret"),
    ("PGRST303", "The token is not accepted.", "use a token that has not expired, signed with this server's secret"),
    ("PGRST302", "PostgREST takes no anonymous calls.", "give a service_role token"),
    ("PGRST", "PostgREST does not take the call.", "see its code at https://docs.postgrest.org/en/stable/references/errors.html"),
    ("42501", "The token's role may not do what the function does.",
     "use a service_role token, or GRANT the role the rights on the function and its tables"),
    ("22023: role ", "The token's role does not exist.", "use a token for a role of the database, as service_role"),
    ("http_401", "The gateway does not accept the token.", "use the project's own service_role key"),
    ("http_403", "The gateway does not accept the token.", "use the project's own service_role key"),
    ("http_", "There is no PostgREST behind the address.", _WRONG_URL),
    (NOT_JSON, "There is no PostgREST behind the address.", _WRONG_URL),
    ("connection_lost", "The connection was cut before the answer.", _WRONG_URL),
    ("not_sent", "The connection was cut before the call was sent.", _WRONG_URL),
)  # fmt: skip
"""Start of an outcome's code and detail, what it says of the set-up, what to do about it; the first that fits."""
