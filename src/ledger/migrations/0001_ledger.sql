-- The ledger: what was read, what was decided, what AWS confirmed. Times are milliseconds since 1970 in UTC, because
-- text of mixed precision does not sort in the order of time.

CREATE TABLE installation (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    owner_id   TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Every distinct content that a schedule was seen to have, in the order of reading.
CREATE TABLE snapshot (
    id            INTEGER PRIMARY KEY,
    schedule      TEXT    NOT NULL,
    first_read_at INTEGER NOT NULL,
    last_read_at  INTEGER NOT NULL CHECK (first_read_at <= last_read_at),
    content       TEXT    NOT NULL,
    body          TEXT    NOT NULL
) STRICT;
CREATE INDEX snapshot_by_schedule ON snapshot (schedule, first_read_at);

-- Why a schedule cannot be read at present.
CREATE TABLE read_failure (
    schedule TEXT    PRIMARY KEY,
    since    INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    message  TEXT    NOT NULL
) STRICT;

-- Written before the call to AWS, completed once after it.
CREATE TABLE intent (
    id           INTEGER PRIMARY KEY,
    kind         TEXT    NOT NULL CHECK (kind IN ('grant', 'revoke')),
    entitlement  TEXT    NOT NULL,
    target       TEXT    NOT NULL,
    principal    TEXT    NOT NULL,
    person       TEXT,
    change       TEXT    NOT NULL,
    policy       TEXT    NOT NULL,
    due_at       INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    reference    TEXT,
    completed_at INTEGER,
    outcome      TEXT    CHECK (outcome IN ('succeeded', 'failed', 'unknown')),
    detail       TEXT,
    CHECK ((completed_at IS NULL) = (outcome IS NULL))
) STRICT;
CREATE INDEX intent_open ON intent (id) WHERE completed_at IS NULL;
CREATE INDEX intent_by_key ON intent (target, principal, id);
CREATE INDEX intent_by_completion ON intent (completed_at);

CREATE TRIGGER intent_completes_once BEFORE UPDATE ON intent
WHEN OLD.completed_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a completed intent never changes'); END;

CREATE TRIGGER intent_stays BEFORE DELETE ON intent
BEGIN SELECT RAISE(ABORT, 'intents are never deleted'); END;

-- An interval of access in AWS that we caused.
CREATE TABLE access (
    id            INTEGER PRIMARY KEY,
    entitlement   TEXT    NOT NULL,
    target        TEXT    NOT NULL,
    principal     TEXT    NOT NULL,
    person        TEXT    NOT NULL,
    granted_at    INTEGER NOT NULL,
    grant_intent  INTEGER NOT NULL REFERENCES intent (id),
    revoked_at    INTEGER CHECK (granted_at <= revoked_at),
    revoke_intent INTEGER REFERENCES intent (id),
    end_reason    TEXT,
    CHECK ((revoked_at IS NULL) = (end_reason IS NULL))
) STRICT;
CREATE UNIQUE INDEX access_open ON access (target, principal) WHERE revoked_at IS NULL;
CREATE INDEX access_by_time ON access (granted_at, revoked_at);

CREATE TRIGGER access_ends_once BEFORE UPDATE ON access
WHEN OLD.revoked_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'an ended interval never changes'); END;

CREATE TRIGGER access_stays BEFORE DELETE ON access
BEGIN SELECT RAISE(ABORT, 'intervals are never deleted'); END;

-- Why somebody had access, from when on the record until when.
CREATE TABLE cause (
    id          INTEGER PRIMARY KEY,
    access_id   INTEGER NOT NULL REFERENCES access (id),
    body        TEXT    NOT NULL,
    recorded_at INTEGER NOT NULL,
    ended_at    INTEGER
) STRICT;
CREATE INDEX cause_by_access ON cause (access_id);

-- What guards hold at present, to say since when.
CREATE TABLE hold (
    subject TEXT    NOT NULL,
    guard   TEXT    NOT NULL,
    since   INTEGER NOT NULL,
    body    TEXT    NOT NULL,
    PRIMARY KEY (subject, guard)
) STRICT;

-- A person's release of exactly one plan.
CREATE TABLE approval (
    id          INTEGER PRIMARY KEY,
    digest      TEXT    NOT NULL,
    approved_at INTEGER NOT NULL,
    approved_by TEXT    NOT NULL
) STRICT;

-- Somebody, or everybody where person is null, who holds nothing until this is lifted: a person's order.
CREATE TABLE bar (
    id        INTEGER PRIMARY KEY,
    person    TEXT,
    since     INTEGER NOT NULL,
    ordered_by TEXT   NOT NULL,
    reason    TEXT    NOT NULL,
    lifted_at INTEGER,
    lifted_by TEXT,
    CHECK ((lifted_at IS NULL) = (lifted_by IS NULL))
) STRICT;

CREATE TRIGGER bar_stays BEFORE DELETE ON bar
BEGIN SELECT RAISE(ABORT, 'orders are never deleted'); END;

-- What the last pass saw, for `status`; replaced as a whole.
CREATE TABLE board (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    updated_at INTEGER NOT NULL,
    body       TEXT    NOT NULL
) STRICT;
