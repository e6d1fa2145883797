-- Who held something at an instant, or in a period, is asked of a record of years: intervals by how long they lasted, so
-- that the question looks at few that neither began nor ended near it. Each interval is in exactly one of these.
DROP INDEX access_by_time;
CREATE INDEX access_standing ON access (entitlement, person, granted_at, revoked_at) WHERE revoked_at IS NULL;
CREATE INDEX access_of_a_day ON access (granted_at, revoked_at) WHERE revoked_at <= granted_at + 86400000;
CREATE INDEX access_of_a_week ON access (granted_at, revoked_at)
    WHERE revoked_at > granted_at + 86400000 AND revoked_at <= granted_at + 691200000;
CREATE INDEX access_of_longer ON access (entitlement, person, granted_at, revoked_at)
    WHERE revoked_at > granted_at + 691200000;

-- The same for duty without access, and one person's.
DROP INDEX unheld_by_holder;
CREATE INDEX unheld_by_person ON unheld (person, entitlement, ended_at);
CREATE INDEX unheld_of_a_day ON unheld (duty_from, ended_at) WHERE ended_at <= duty_from + 86400000;
CREATE INDEX unheld_of_longer ON unheld (duty_from, ended_at) WHERE ended_at > duty_from + 86400000;

-- Changes that took longer than an hour.
CREATE INDEX intent_that_lasted ON intent (created_at) WHERE completed_at > created_at + 3600000;

-- What counters show of everything that ended and of which nothing changes any more, whether or not it is still on
-- record, by entitlement. It derives from the tables above, so the chain does not tell of it; `audit verify` adds it up again.
CREATE TABLE total (
    entitlement TEXT NOT NULL PRIMARY KEY,
    body        TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO total (entitlement, body) SELECT entitlement, json_object('held', json(body)) FROM removed;

-- What is not in `total` yet: intervals that ended, and duty without access.
CREATE TABLE uncounted_access (id INTEGER PRIMARY KEY) STRICT;
CREATE TABLE uncounted_unheld (id INTEGER PRIMARY KEY) STRICT;
INSERT INTO uncounted_access (id) SELECT id FROM access WHERE revoked_at IS NOT NULL;
INSERT INTO uncounted_unheld (id) SELECT id FROM unheld;

CREATE TRIGGER access_is_to_count AFTER UPDATE OF revoked_at ON access
WHEN OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL
BEGIN INSERT INTO uncounted_access (id) VALUES (NEW.id); END;
CREATE TRIGGER access_of_the_past_is_to_count AFTER INSERT ON access
WHEN NEW.revoked_at IS NOT NULL
BEGIN INSERT INTO uncounted_access (id) VALUES (NEW.id); END;
CREATE TRIGGER unheld_is_to_count AFTER INSERT ON unheld
BEGIN INSERT INTO uncounted_unheld (id) VALUES (NEW.id); END;
