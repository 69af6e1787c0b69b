"""`harness new` writes what runs as it is: arguments and rows are asked from the server, and tried."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.check import Checks
from harness.environment.database import Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.postgrest import SupabaseRoles
from harness.errors import UsageError
from harness.options import Options
from harness.scenarios import examples, reader
from harness.scenarios.starting import scenario_for
from harness.verdict.findings import Truth

SCHEMA = """
CREATE TYPE size AS ENUM ('small', 'large');
CREATE TABLE shops (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text NOT NULL, kind size NOT NULL);
CREATE TABLE items (id int PRIMARY KEY, shop uuid NOT NULL REFERENCES shops, n int NOT NULL CHECK (n > 0));
CREATE TABLE notes (item int NOT NULL REFERENCES items, at timestamptz NOT NULL, body jsonb NOT NULL);
CREATE FUNCTION buy(p_item_id int, p_who text, p_note jsonb DEFAULT '{}') RETURNS TABLE (ok boolean, left_over int)
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY UPDATE items SET n = n - 1 WHERE id = p_item_id AND n > 1 RETURNING true, n;
    INSERT INTO notes (item, at, body) VALUES (p_item_id, now(), p_note);
END $$;
CREATE FUNCTION "Give Back"(p_item_id int) RETURNS int LANGUAGE sql AS
    $$ UPDATE items SET n = n + 1 WHERE id = p_item_id RETURNING n $$;
CREATE TABLE vouchers (code text PRIMARY KEY, left_over int NOT NULL);
CREATE FUNCTION redeem(p_code text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT left_over FROM vouchers WHERE code = p_code) < 1 THEN RETURN false; END IF;
    UPDATE vouchers SET left_over = left_over - 1 WHERE code = p_code;
    RETURN true;
END $$;
CREATE PROCEDURE tidy_up() LANGUAGE sql AS $$ DELETE FROM notes $$;
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION twice(text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER noted AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION noted();
"""
REFUSED = {
    "twice": r"2 functions twice.*public\.twice\(integer\).*harness new 'public\.twice\(integer\)'",
    "twice(uuid)": r"no function twice\(uuid\).*public\.twice\(text\)",
    "nowhere": "no function nowhere",
    "noted": r"trigger's function.*AFTER INSERT ON public\.notes",
}


@pytest.mark.parametrize(
    "functions",
    [
        ["buy"],
        ["buy", "Give Back"],
        ["redeem"],
        ["public.tidy_up"],
        ["twice(int)", "public.twice( text )"],
        *([each] for each in REFUSED),
    ],
)
def test_what_is_written_runs_as_it_is(functions: list[str], server: EmbeddedServer, tmp_path: Path) -> None:
    """Rows come parents first, a key finds its row, and both sessions run; what is not one function is refused."""
    migration = tmp_path / "001.sql"
    migration.write_text(SCHEMA)
    with Template(server, [migration], []) as template:
        with template.clone() as database, database.connect() as connection:
            if functions[0] in REFUSED:
                with pytest.raises(UsageError) as error:
                    scenario_for(connection, functions)
                assert re.search(REFUSED[functions[0]], str(error.value), re.DOTALL), error.value
                return
            text = scenario_for(connection, functions)
        path = tmp_path / "new.race.sql"
        path.write_text(text)
        run = Checks(Options(timeout=5.0), server, template).check(reader.read(path), by=("explore",))
    assert run.truth in (Truth.HELD, Truth.BROKEN)
    assert not [note for note in run.notes if "fails already" in note]
    if functions[0] == "redeem":
        assert "SELECT redeem((SELECT code FROM vouchers ORDER BY 1 LIMIT 1));" in text
        assert run.truth is Truth.BROKEN
    if functions[0] == "buy":
        assert text.index("INTO shops") < text.index("INTO items")
        assert "refused" not in text
        assert "SELECT * FROM buy((SELECT id FROM items ORDER BY 1 LIMIT 1), :'session');" in text


WHO = """
CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO authenticated;
CREATE TABLE auth.users (id uuid PRIMARY KEY);
CREATE TABLE auth.tokens (user_id uuid NOT NULL REFERENCES auth.users, token text NOT NULL);
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
    $$ SELECT (current_setting('request.jwt.claims', true)::json ->> 'sub')::uuid $$;
CREATE TABLE members (user_id uuid NOT NULL REFERENCES auth.users, state varchar(2) NOT NULL,
    rank text NOT NULL CHECK (rank IN ('gold', 'tin')), n int NOT NULL CHECK (n > 0));
CREATE FUNCTION spend() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    -- users and tokens are only words here
    UPDATE members SET n = n + 1 WHERE user_id = auth.uid();
    RETURN (SELECT n FROM members WHERE user_id = auth.uid());
END $$;
"""


def test_a_function_that_asks_who_calls_it_is_called_by_somebody(server: EmbeddedServer, tmp_path: Path) -> None:
    """The user is there, the sessions are hers, values fit their columns; a table that it only mentions has no row."""
    migration = tmp_path / "001.sql"
    migration.write_text(WHO)
    with SupabaseRoles(server), Template(server, [migration], []) as template:
        with template.clone() as database, database.connect() as connection:
            text = scenario_for(connection, ["spend"])
        path = tmp_path / "new.race.sql"
        path.write_text(text)
        run = Checks(Options(timeout=5.0), server, template).check(reader.read(path), by=("race",))
    assert text.count('-- as: authenticated {"sub": "00000000-0000-0000-0000-000000000001"}') == 2
    assert "'ex', 'gold', 1);" in text
    assert "tokens" not in text
    assert run.truth is Truth.HELD
    assert not [note for note in run.notes if "nothing happened" in note or "fails already" in note]


def test_what_the_server_refuses_is_a_comment(server: EmbeddedServer, tmp_path: Path) -> None:
    """A row that no proposal fits stands there with the reason, and what is written can be read all the same."""
    migration = tmp_path / "001.sql"
    odd = "CREATE TABLE odd (code text NOT NULL CHECK (code ~ '^[0-9]+$'));\n"
    migration.write_text(
        odd + "CREATE FUNCTION count_odd() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM odd';\n"
    )
    with Template(server, [migration], []) as template, template.clone() as database, database.connect() as connection:
        text = scenario_for(connection, ["count_odd"])
    assert '--  The server says of this: new row for relation "odd" violates check constraint' in text
    path = tmp_path / "new.race.sql"
    path.write_text(text)
    assert len(reader.read(path).sessions) == 2


def test_an_example_is_copied_by_its_name() -> None:
    """Each can be read; another name is refused with those that there are."""
    assert all(examples.text(name).startswith("-- scenario: ") for name in examples.names())
    with pytest.raises(UsageError, match=r"last_seat"):
        examples.text("nothing")
