-- Of a name that a proxy was asked for: which port there. `remote` is the proxy.
ALTER TABLE endpoint ADD COLUMN domain_port INTEGER;
-- It carries on what this process asked a proxy for: in sums of names and classes the process's own connection counts.
ALTER TABLE endpoint ADD COLUMN relay_for INTEGER;

DROP INDEX endpoint_identity;
CREATE UNIQUE INDEX endpoint_identity
    ON endpoint (ifnull(remote, ''), protocol, ifnull(domain, ''), ifnull(domain_source, ''), ifnull(type, ''), ifnull(peer_pid, 0),
                 ifnull(domain_port, 0), ifnull(relay_for, 0));

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
       CASE WHEN endpoint.domain_port IS NULL THEN NULL
            WHEN instr(endpoint.remote, ':') THEN '[' || endpoint.remote || ']:' || event.remote_port
            ELSE endpoint.remote || ':' || event.remote_port END AS via,
       endpoint.domain_port                   AS domain_port,
       endpoint.relay_for                     AS relay_for
FROM event
JOIN kind ON kind.id = event.kind
JOIN process ON process.id = event.process
JOIN session ON session.id = process.session
JOIN endpoint ON endpoint.id = event.endpoint
LEFT JOIN address ON address.id = event.local
LEFT JOIN tool_call ON tool_call.id = process.call
LEFT JOIN directory ON directory.id = process.cwd;
