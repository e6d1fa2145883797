-- The chain: every change of the tables above as an event, each hashed together with the hash of the one before.
CREATE TABLE event (
    seq  INTEGER PRIMARY KEY,
    at   INTEGER NOT NULL,
    kind TEXT    NOT NULL,
    -- Which table and row it tells of, empty and null where it tells of none; and how: insert, update, delete, restate, note.
    tbl  TEXT    NOT NULL,
    row  INTEGER,
    op   TEXT    NOT NULL CHECK (op IN ('insert', 'update', 'delete', 'restate', 'note')),
    body TEXT    NOT NULL,
    hash BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE INDEX event_by_row ON event (tbl, row, seq);
CREATE INDEX event_by_time ON event (at);

-- Holds one row within the transaction that removes what is older than is to be kept, and none otherwise, so that
-- nobody else ever sees it: what the triggers below let go is exactly what that transaction may remove.
CREATE TABLE retention (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    -- Events up to this one may go, and whatever ended before this instant.
    cut    INTEGER NOT NULL,
    before INTEGER NOT NULL
) STRICT;

-- Access time of intervals that were removed, so that counters which derive from the ledger never go backwards.
CREATE TABLE removed (
    id          INTEGER PRIMARY KEY,
    entitlement TEXT    NOT NULL UNIQUE,
    intervals   INTEGER NOT NULL,
    body        TEXT    NOT NULL
) STRICT;

CREATE TRIGGER event_never_changes BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'events never change'); END;
CREATE TRIGGER event_stays BEFORE DELETE ON event
WHEN NOT EXISTS (SELECT 1 FROM retention WHERE OLD.seq <= cut)
BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;

DROP TRIGGER intent_stays;
CREATE TRIGGER intent_stays BEFORE DELETE ON intent
WHEN NOT EXISTS (SELECT 1 FROM retention WHERE OLD.completed_at < before)
BEGIN SELECT RAISE(ABORT, 'intents are never deleted'); END;

DROP TRIGGER access_stays;
CREATE TRIGGER access_stays BEFORE DELETE ON access
WHEN NOT EXISTS (SELECT 1 FROM retention WHERE OLD.revoked_at < before)
BEGIN SELECT RAISE(ABORT, 'intervals are never deleted'); END;

CREATE TRIGGER cause_stays BEFORE DELETE ON cause
WHEN NOT EXISTS (SELECT 1 FROM retention WHERE OLD.ended_at < before)
BEGIN SELECT RAISE(ABORT, 'causes are never deleted'); END;
CREATE TRIGGER cause_ends_once BEFORE UPDATE ON cause
WHEN OLD.ended_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'an ended cause never changes'); END;

CREATE TRIGGER approval_stays BEFORE DELETE ON approval
BEGIN SELECT RAISE(ABORT, 'approvals are never deleted'); END;
CREATE TRIGGER removed_stays BEFORE DELETE ON removed
BEGIN SELECT RAISE(ABORT, 'totals of what was removed are never deleted'); END;

-- Rows are told apart by their number in the chain, and those without a column for it are renumbered by a copy.
CREATE TABLE numbered_hold (
    id      INTEGER PRIMARY KEY,
    subject TEXT    NOT NULL,
    guard   TEXT    NOT NULL,
    since   INTEGER NOT NULL,
    body    TEXT    NOT NULL,
    UNIQUE (subject, guard)
) STRICT;
INSERT INTO numbered_hold (subject, guard, since, body) SELECT subject, guard, since, body FROM hold;
DROP TABLE hold;
ALTER TABLE numbered_hold RENAME TO hold;

-- Removal looks for what refers to an intent.
CREATE INDEX access_by_grant ON access (grant_intent);
CREATE INDEX access_by_revoke ON access (revoke_intent);
