-- For whom a process ran: its agent, and the process that the agent started on the way to it, which may have ended.
-- Rows are a session's own. tool is NULL for what the agent itself does; tool_started is in Unix milliseconds.
CREATE TABLE tool_call (
    id            INTEGER PRIMARY KEY,
    session       INTEGER NOT NULL REFERENCES session,
    agent         TEXT    NOT NULL,
    agent_pid     INTEGER NOT NULL,
    agent_session TEXT,
    tool          TEXT,
    tool_pid      INTEGER,
    tool_started  INTEGER
);
-- Sessions that are not to be kept are taken out by it.
CREATE INDEX tool_call_session ON tool_call (session);

-- Working directories. Interned, as endpoints are.
CREATE TABLE directory (
    id   INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE
);

-- program is NULL where it is the comm, as in rows that are older.
ALTER TABLE process ADD COLUMN program TEXT;
ALTER TABLE process ADD COLUMN cwd INTEGER REFERENCES directory;
ALTER TABLE process ADD COLUMN call INTEGER REFERENCES tool_call;
ALTER TABLE process ADD COLUMN trace_id TEXT;
ALTER TABLE process ADD COLUMN span_id TEXT;

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
       process.span_id                        AS span_id
FROM event
JOIN kind ON kind.id = event.kind
JOIN process ON process.id = event.process
JOIN session ON session.id = process.session
JOIN endpoint ON endpoint.id = event.endpoint
LEFT JOIN address ON address.id = event.local
LEFT JOIN tool_call ON tool_call.id = process.call
LEFT JOIN directory ON directory.id = process.cwd;
