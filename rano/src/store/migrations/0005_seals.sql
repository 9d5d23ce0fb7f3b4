-- Each batch that is committed is a link of a chain: docs/store.md says over what, and `rano verify` follows it.
-- Events, amendments, processes and tool calls of a batch follow each other by id: the first one and how many. Of shared
-- tables it covers the rows behind those of the seal before, up to the ids here. Seals stay when their session is pruned.
CREATE TABLE seal (
    id              INTEGER PRIMARY KEY,
    session         INTEGER NOT NULL,
    keyed           INTEGER NOT NULL,
    ends            INTEGER NOT NULL,
    first_event     INTEGER NOT NULL,
    events          INTEGER NOT NULL,
    first_amendment INTEGER NOT NULL,
    amendments      INTEGER NOT NULL,
    first_process   INTEGER NOT NULL,
    processes       INTEGER NOT NULL,
    first_call      INTEGER NOT NULL,
    calls           INTEGER NOT NULL,
    kinds           INTEGER NOT NULL,
    endpoints       INTEGER NOT NULL,
    addresses       INTEGER NOT NULL,
    directories     INTEGER NOT NULL,
    actors          INTEGER NOT NULL,
    shared          BLOB,
    rows            BLOB NOT NULL,
    hash            BLOB NOT NULL
);

-- What changed of an event since it was written. field: 0 its endpoint, 1 its kind, 2 a name it may go by was added, 3
-- one was removed. Of names, `after` is the digest.
CREATE TABLE amendment (
    id      INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    event   INTEGER NOT NULL,
    field   INTEGER NOT NULL,
    before,
    after
);

-- What is left of sessions that were taken out, and the seal that covers it.
CREATE TABLE stub (
    session    INTEGER PRIMARY KEY,
    run_id     TEXT    NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    events     INTEGER NOT NULL,
    pruned_before INTEGER NOT NULL,
    seal       INTEGER NOT NULL
);

-- Over the session's counters and the bytes of its open connections, as they stand. NULL: nothing of it is sealed.
ALTER TABLE session ADD COLUMN state_seal BLOB;
