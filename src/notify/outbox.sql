-- What people are still to be told. Times are milliseconds since 1970 in UTC.

-- Messages on their way. Those that ended keep their key for a while, so that nothing is said twice.
CREATE TABLE IF NOT EXISTS message (
    id          INTEGER PRIMARY KEY,
    destination TEXT    NOT NULL,
    -- To whom at the destination; messages of one lane keep their order.
    lane        TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    body        TEXT    NOT NULL,
    tries       INTEGER NOT NULL DEFAULT 0,
    not_before  INTEGER NOT NULL DEFAULT 0,
    ended_at    INTEGER,
    UNIQUE (destination, lane, key)
) STRICT;
CREATE INDEX IF NOT EXISTS message_waiting ON message (destination, lane, id) WHERE ended_at IS NULL;
CREATE INDEX IF NOT EXISTS message_ended ON message (ended_at) WHERE ended_at IS NOT NULL;

-- Access that came or went and waits to be told together with what else happens at the same hand-off.
CREATE TABLE IF NOT EXISTS event (
    id       INTEGER PRIMARY KEY,
    audience TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    body     TEXT    NOT NULL
) STRICT;

-- What was so at the last look, and since when, and whether people were told.
CREATE TABLE IF NOT EXISTS condition (
    subject TEXT    PRIMARY KEY,
    since   INTEGER NOT NULL,
    told_at INTEGER,
    body    TEXT    NOT NULL
) STRICT;

-- Changes of the ledger that were taken in.
CREATE TABLE IF NOT EXISTS taken (
    change_id INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (at, change_id)
) STRICT;

-- How far the ledger was taken in, and when what is on a cron schedule ran last.
CREATE TABLE IF NOT EXISTS mark (
    name TEXT    PRIMARY KEY,
    at   INTEGER NOT NULL
) STRICT;
