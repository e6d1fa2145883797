-- How long role sessions live, by permission set: a row for each time that it was found to be different.
CREATE TABLE session_length (
    id             INTEGER PRIMARY KEY,
    permission_set TEXT    NOT NULL,
    found_at       INTEGER NOT NULL,
    milliseconds   INTEGER NOT NULL
) STRICT;

-- Who was on duty without the access that it earns, as passes found it. Access in the meantime is in `access`.
CREATE TABLE unheld (
    id          INTEGER PRIMARY KEY,
    entitlement TEXT    NOT NULL,
    person      TEXT    NOT NULL,
    duty_from   INTEGER NOT NULL,
    duty_to     INTEGER NOT NULL CHECK (duty_from < duty_to),
    why         TEXT    NOT NULL,
    noted_at    INTEGER NOT NULL,
    ended_at    INTEGER
) STRICT;
CREATE INDEX unheld_open ON unheld (id) WHERE ended_at IS NULL;
CREATE INDEX unheld_by_holder ON unheld (entitlement, person, ended_at);
CREATE INDEX access_by_holder ON access (entitlement, person, granted_at);

CREATE TRIGGER unheld_ends_once BEFORE UPDATE ON unheld
WHEN OLD.ended_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'an ended entry never changes'); END;
