-- Questions about somebody's past access are asked of a record of years.
CREATE INDEX access_by_person ON access (person, entitlement, granted_at);
