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

DROP VIEW events;
CREATE VIEW events AS
SELECT event.id                               AS id,
       strftime('%Y-%m-%dT%H:%M:%S', event.ts / 1000, 'unixepoch')
           || printf('.%03dZ', event.ts % 1000) AS ts,
       session.run_id                         AS run_id,
       kind.event                             AS event,
       process.provider                       AS provider,
       process.pid                            AS pid,
       ifnull(process.comm, 'unknown')        AS comm,
       process.cmdline                        AS cmdline,
       endpoint.protocol                      AS proto,
       address.address                        AS local_ip,
       event.local_port                       AS local_port,
       endpoint.remote                        AS remote_ip,
       event.remote_port                      AS remote_port,
       endpoint.domain                        AS domain,
       process.ancestry                       AS ancestry_path,
       event.duration_ms                      AS duration_ms,
       kind.alert                             AS alert,
       process.ppid                           AS ppid,
       process.uid                            AS uid,
       process.exe                            AS exe,
       endpoint.type                          AS endpoint_type,
       event.bytes_sent                       AS bytes_sent,
       event.bytes_recv                       AS bytes_recv,
       kind.error                             AS error,
       kind.state                             AS state,
       kind.source                            AS source,
       kind.owner_quality                     AS owner_quality,
       ifnull(endpoint.domain_source, 'none') AS domain_source,
       kind.preexisting                       AS preexisting,
       process.netns                          AS netns,
       endpoint.peer_pid                      AS peer_pid,
       tool_call.agent                        AS agent,
       tool_call.agent_pid                    AS agent_pid,
       tool_call.agent_session                AS agent_session,
       ifnull(process.program, ifnull(process.comm, 'unknown')) AS program,
       directory.path                         AS cwd,
       tool_call.tool                         AS tool,
       tool_call.tool_pid                     AS tool_pid,
       strftime('%Y-%m-%dT%H:%M:%S', tool_call.tool_started / 1000, 'unixepoch')
           || printf('.%03dZ', tool_call.tool_started % 1000) AS tool_started,
       process.trace_id                       AS trace_id,
       process.span_id                        AS span_id,
       session.state_seal IS NOT NULL         AS sealed
FROM event
JOIN kind ON kind.id = event.kind
JOIN process ON process.id = event.process
JOIN session ON session.id = process.session
JOIN endpoint ON endpoint.id = event.endpoint
LEFT JOIN address ON address.id = event.local
LEFT JOIN tool_call ON tool_call.id = process.call
LEFT JOIN directory ON directory.id = process.cwd;
