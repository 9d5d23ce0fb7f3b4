-- While a connection is open, the row of its first event has the bytes so far; the row of its end has all of them.
DROP VIEW connection_events;
CREATE VIEW connection_events AS
SELECT event.id                                                       AS id,
       event.ts                                                       AS ts,
       process.session                                                AS session,
       process.provider                                               AS provider,
       process.pid                                                    AS pid,
       process.start_time                                             AS start_time,
       process.comm                                                   AS comm,
       endpoint.remote                                                AS remote_ip,
       event.remote_port                                              AS remote_port,
       endpoint.domain                                                AS domain,
       kind.event = 'connect'                                         AS connects,
       kind.event = 'close'                                           AS closes,
       kind.event = 'fail'                                            AS fails,
       event.bytes_sent                                               AS bytes_sent,
       event.bytes_recv                                               AS bytes_recv
FROM event
JOIN kind ON kind.id = event.kind
JOIN process ON process.id = event.process
JOIN session ON session.id = process.session
JOIN endpoint ON endpoint.id = event.endpoint
WHERE kind.event IN ('connect', 'close', 'fail');

-- Open connections by provider, as a JSON object.
ALTER TABLE session ADD COLUMN active_providers TEXT NOT NULL DEFAULT '{}';

-- Bytes that left the machine or came to it, and those that stayed on it: there a connection of which both ends were
-- watched counts once. NULL where nobody told them apart.
ALTER TABLE session ADD COLUMN away_sent INTEGER;
ALTER TABLE session ADD COLUMN away_recv INTEGER;
ALTER TABLE session ADD COLUMN loopback_sent INTEGER;
ALTER TABLE session ADD COLUMN loopback_recv INTEGER;
