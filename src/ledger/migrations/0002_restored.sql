-- Which ledger this is, so that the redo log beside it is known to be its own, and when `backup` made this copy of it.
ALTER TABLE installation ADD COLUMN ledger_id TEXT;
ALTER TABLE installation ADD COLUMN copied_at INTEGER;

-- Every time that this ledger turned out to be an older copy put in its place.
CREATE TABLE restoration (
    id          INTEGER PRIMARY KEY,
    found_at    INTEGER NOT NULL,
    why         TEXT    NOT NULL,
    -- The span of which the copy knew nothing.
    lost_from   INTEGER NOT NULL,
    lost_to     INTEGER NOT NULL CHECK (lost_from <= lost_to),
    -- The copy's last intent.
    last_intent INTEGER NOT NULL,
    -- How many changes the redo log brought back; null where it did not reach back to the copy.
    replayed    INTEGER,
    -- What the copy's last pass saw as somebody else's.
    drift       TEXT    NOT NULL,
    -- What is still to be found out, from schedules and from AWS; null once nothing is.
    outstanding TEXT,
    -- How many grants were found to be ours without a record, and how many on record to be gone.
    found       INTEGER NOT NULL DEFAULT 0,
    gone        INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TRIGGER restoration_stays BEFORE DELETE ON restoration
BEGIN SELECT RAISE(ABORT, 'restorations are never deleted'); END;
