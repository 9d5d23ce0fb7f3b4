-- Rows that repeat are stored once and referred to by id; `event` is append-only but for a name that arrives late.
-- Interned rows (kind, endpoint, address) are never deleted: running writers remember their ids.
-- Sessions that are not to be kept are the exception, see `pruning`; interned rows stay even then.
-- Times are integers, Unix milliseconds, within the years 1970 to 9999. Lists are JSON arrays of strings.

CREATE TABLE session (
    id                 INTEGER PRIMARY KEY,
    run_id             TEXT    NOT NULL UNIQUE,
    name               TEXT,
    started_at         INTEGER NOT NULL,
    ended_at           INTEGER,
    host               TEXT    NOT NULL,
    user               TEXT    NOT NULL,
    args               TEXT    NOT NULL,
    patterns           TEXT    NOT NULL,
    config_files       TEXT    NOT NULL,
    source             TEXT    NOT NULL,
    source_reason      TEXT,
    clean_exit         INTEGER NOT NULL DEFAULT 0,
    connects           INTEGER NOT NULL DEFAULT 0,
    closes             INTEGER NOT NULL DEFAULT 0,
    fails              INTEGER NOT NULL DEFAULT 0,
    accepts            INTEGER NOT NULL DEFAULT 0,
    listens            INTEGER NOT NULL DEFAULT 0,
    active             INTEGER NOT NULL DEFAULT 0,
    peak_active        INTEGER NOT NULL DEFAULT 0,
    bytes_sent         INTEGER NOT NULL DEFAULT 0,
    bytes_recv         INTEGER NOT NULL DEFAULT 0,
    alerts             INTEGER NOT NULL DEFAULT 0,
    unattributed       INTEGER NOT NULL DEFAULT 0,
    notifications_lost INTEGER NOT NULL DEFAULT 0,
    opened_unwatched   INTEGER NOT NULL DEFAULT 0,
    permission_denied  INTEGER NOT NULL DEFAULT 0,
    vanished           INTEGER NOT NULL DEFAULT 0,
    table_full         INTEGER NOT NULL DEFAULT 0,
    unread             INTEGER NOT NULL DEFAULT 0,
    names_lost         INTEGER NOT NULL DEFAULT 0,
    unresolved         INTEGER NOT NULL DEFAULT 0,
    names_forgotten    INTEGER NOT NULL DEFAULT 0,
    sqlite_dropped     INTEGER NOT NULL DEFAULT 0,
    kernel_dropped     INTEGER NOT NULL DEFAULT 0,
    kernel_unfollowed  INTEGER NOT NULL DEFAULT 0,
    kernel_skipped     INTEGER NOT NULL DEFAULT 0
);

-- Who acts, as far as sums tell people apart. comm is NULL where nobody could be named.
CREATE TABLE actor (
    id       INTEGER PRIMARY KEY,
    provider TEXT NOT NULL,
    comm     TEXT
);
CREATE UNIQUE INDEX actor_identity ON actor (provider, ifnull(comm, ''));

-- On whose account: one row a session, process image, provider and network namespace.
-- pid, ppid, uid, start_time and comm are NULL where nobody could be named.
CREATE TABLE process (
    id         INTEGER PRIMARY KEY,
    session    INTEGER NOT NULL REFERENCES session,
    actor      INTEGER NOT NULL REFERENCES actor,
    provider   TEXT    NOT NULL,
    netns      INTEGER NOT NULL,
    pid        INTEGER,
    ppid       INTEGER,
    uid        INTEGER,
    start_time INTEGER,
    comm       TEXT,
    cmdline    TEXT,
    exe        TEXT,
    ancestry   TEXT
);

-- What happened and how it is known: a few dozen combinations.
CREATE TABLE kind (
    id            INTEGER PRIMARY KEY,
    event         TEXT    NOT NULL,
    state         TEXT,
    error         TEXT,
    source        TEXT    NOT NULL,
    owner_quality TEXT    NOT NULL,
    preexisting   INTEGER NOT NULL,
    alert         INTEGER NOT NULL
);
-- Unique indexes keep interned rows single when several programs write; they also find a row after a restart.
CREATE UNIQUE INDEX kind_identity
    ON kind (event, ifnull(state, ''), ifnull(error, ''), source, owner_quality, preexisting, alert);

-- The far end. Its port stands in `event`, because of an accepted connection it is another one each time.
-- remote is an IP address or a unix socket's path.
CREATE TABLE endpoint (
    id            INTEGER PRIMARY KEY,
    protocol      TEXT NOT NULL,
    remote        TEXT,
    domain        TEXT,
    domain_source TEXT,
    type          TEXT,
    -- Who holds the other end of a unix socket.
    peer_pid      INTEGER
);
CREATE UNIQUE INDEX endpoint_identity
    ON endpoint (ifnull(remote, ''), protocol, ifnull(domain, ''), ifnull(domain_source, ''), ifnull(type, ''), ifnull(peer_pid, 0));

-- The near end: an IP address or a unix socket's path.
CREATE TABLE address (
    id      INTEGER PRIMARY KEY,
    address TEXT NOT NULL UNIQUE
);

-- No index but the row id, which follows the order of arrival: `activity` says which ids an hour's events have.
CREATE TABLE event (
    id          INTEGER PRIMARY KEY,
    ts          INTEGER NOT NULL,
    kind        INTEGER NOT NULL REFERENCES kind,
    process     INTEGER NOT NULL REFERENCES process,
    endpoint    INTEGER NOT NULL REFERENCES endpoint,
    local       INTEGER REFERENCES address,
    local_port  INTEGER,
    remote_port INTEGER,
    duration_ms INTEGER,
    bytes_sent  INTEGER,
    bytes_recv  INTEGER
);

-- Sums, written in the transaction of the rows they sum. Hours are those of the Unix clock: ts / 3600000.
-- The ids of an hour's events lie between first_event and last_event, among those of other writers.
-- first_seen and last_seen are of connects, closes and fails. Bytes count once, when a connection ends.
CREATE TABLE activity (
    session     INTEGER NOT NULL REFERENCES session,
    hour        INTEGER NOT NULL,
    provider    TEXT    NOT NULL,
    first_event INTEGER NOT NULL,
    last_event  INTEGER NOT NULL,
    first_seen  INTEGER,
    last_seen   INTEGER,
    connects    INTEGER NOT NULL,
    closes      INTEGER NOT NULL,
    fails       INTEGER NOT NULL,
    accepts     INTEGER NOT NULL,
    listens     INTEGER NOT NULL,
    bytes_sent  INTEGER NOT NULL,
    bytes_recv  INTEGER NOT NULL,
    PRIMARY KEY (session, hour, provider)
) WITHOUT ROWID;

-- hour is -1 in the sums of the whole session; only they have first_seen and last_seen, which count the events that got
-- another name since. A row whose events all got another name is all zeros.
CREATE TABLE traffic (
    session    INTEGER NOT NULL REFERENCES session,
    hour       INTEGER NOT NULL,
    actor      INTEGER NOT NULL REFERENCES actor,
    endpoint   INTEGER NOT NULL REFERENCES endpoint,
    connects   INTEGER NOT NULL,
    closes     INTEGER NOT NULL,
    fails      INTEGER NOT NULL,
    accepts    INTEGER NOT NULL,
    listens    INTEGER NOT NULL,
    bytes_sent INTEGER NOT NULL,
    bytes_recv INTEGER NOT NULL,
    first_seen INTEGER,
    last_seen  INTEGER,
    PRIMARY KEY (session, hour, actor, endpoint)
) WITHOUT ROWID;

-- By remote port, of the whole session: connects, closes and fails.
CREATE TABLE port_traffic (
    session    INTEGER NOT NULL REFERENCES session,
    provider   TEXT    NOT NULL,
    port       INTEGER NOT NULL,
    connects   INTEGER NOT NULL,
    closes     INTEGER NOT NULL,
    fails      INTEGER NOT NULL,
    bytes_sent INTEGER NOT NULL,
    bytes_recv INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    PRIMARY KEY (session, provider, port)
) WITHOUT ROWID;

-- By process: connects, closes and fails.
CREATE TABLE process_traffic (
    process    INTEGER PRIMARY KEY REFERENCES process,
    connects   INTEGER NOT NULL,
    closes     INTEGER NOT NULL,
    fails      INTEGER NOT NULL,
    bytes_sent INTEGER NOT NULL,
    bytes_recv INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL
);

-- Names an event may go by and that are not its domain: weaker ones, and those of which one is as likely as the other.
CREATE TABLE event_names (
    event_id INTEGER NOT NULL,
    name     TEXT    NOT NULL,
    source   TEXT    NOT NULL,
    PRIMARY KEY (event_id, name, source)
) WITHOUT ROWID;

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
       endpoint.peer_pid                      AS peer_pid
FROM event
JOIN kind ON kind.id = event.kind
JOIN process ON process.id = event.process
JOIN session ON session.id = process.session
JOIN endpoint ON endpoint.id = event.endpoint
LEFT JOIN address ON address.id = event.local;

CREATE VIEW sessions AS
SELECT run_id,
       name,
       strftime('%Y-%m-%dT%H:%M:%S', started_at / 1000, 'unixepoch')
           || printf('.%03dZ', started_at % 1000) AS started_at,
       strftime('%Y-%m-%dT%H:%M:%S', ended_at / 1000, 'unixepoch')
           || printf('.%03dZ', ended_at % 1000) AS ended_at,
       host,
       user,
       args,
       patterns,
       config_files,
       source,
       source_reason,
       clean_exit,
       connects,
       closes,
       fails,
       accepts,
       listens,
       active,
       peak_active,
       bytes_sent,
       bytes_recv,
       alerts,
       unattributed,
       notifications_lost,
       opened_unwatched,
       permission_denied,
       vanished,
       table_full,
       unread,
       names_lost,
       unresolved,
       names_forgotten,
       sqlite_dropped,
       kernel_dropped,
       kernel_unfollowed,
       kernel_skipped
FROM session;

-- Sessions that were taken out: their rows of session and activity are gone, the others follow a part at a time, in the
-- order of the columns. Events up to next_event are gone; process ids are those that the events referred to.
-- Their ids are not given to new sessions before.
CREATE TABLE pruning (
    session       INTEGER PRIMARY KEY,
    next_event    INTEGER NOT NULL,
    last_event    INTEGER NOT NULL,
    next_process  INTEGER NOT NULL,
    last_process  INTEGER NOT NULL
);

-- What the views below count: connections, not the serving side. Bytes count once, when a connection ends.
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
       CASE WHEN kind.event = 'connect' THEN 0 ELSE event.bytes_sent END AS bytes_sent,
       CASE WHEN kind.event = 'connect' THEN 0 ELSE event.bytes_recv END AS bytes_recv
FROM event
JOIN kind ON kind.id = event.kind
JOIN process ON process.id = event.process
JOIN session ON session.id = process.session
JOIN endpoint ON endpoint.id = event.endpoint
WHERE kind.event IN ('connect', 'close', 'fail');

CREATE VIEW provider_counts AS
SELECT provider,
       sum(connects)   AS connects,
       sum(closes)     AS closes,
       sum(fails)      AS fails,
       sum(bytes_sent) AS bytes_sent,
       sum(bytes_recv) AS bytes_recv,
       strftime('%Y-%m-%dT%H:%M:%S', min(first_seen) / 1000, 'unixepoch') || printf('.%03dZ', min(first_seen) % 1000) AS first_seen,
       strftime('%Y-%m-%dT%H:%M:%S', max(last_seen) / 1000, 'unixepoch') || printf('.%03dZ', max(last_seen) % 1000) AS last_seen
FROM activity
WHERE first_seen IS NOT NULL
GROUP BY provider;

-- The sums of whole sessions, with what they stand for.
CREATE VIEW session_traffic AS
SELECT actor.provider     AS provider,
       endpoint.domain    AS domain,
       -- A unix socket's path is no address.
       CASE WHEN endpoint.protocol <> 'unix' THEN endpoint.remote END AS remote_ip,
       traffic.connects   AS connects,
       traffic.closes     AS closes,
       traffic.fails      AS fails,
       traffic.bytes_sent AS bytes_sent,
       traffic.bytes_recv AS bytes_recv,
       traffic.first_seen AS first_seen,
       traffic.last_seen  AS last_seen
FROM session
CROSS JOIN traffic ON traffic.session = session.id AND traffic.hour = -1
CROSS JOIN actor ON actor.id = traffic.actor
CROSS JOIN endpoint ON endpoint.id = traffic.endpoint
WHERE traffic.connects + traffic.closes + traffic.fails > 0;

CREATE VIEW provider_domains AS
SELECT provider,
       domain,
       sum(connects)   AS connects,
       sum(closes)     AS closes,
       sum(fails)      AS fails,
       sum(bytes_sent) AS bytes_sent,
       sum(bytes_recv) AS bytes_recv,
       strftime('%Y-%m-%dT%H:%M:%S', min(first_seen) / 1000, 'unixepoch') || printf('.%03dZ', min(first_seen) % 1000) AS first_seen,
       strftime('%Y-%m-%dT%H:%M:%S', max(last_seen) / 1000, 'unixepoch') || printf('.%03dZ', max(last_seen) % 1000) AS last_seen
FROM session_traffic
WHERE domain IS NOT NULL
GROUP BY provider, domain;

CREATE VIEW provider_ips AS
SELECT provider,
       remote_ip,
       sum(connects)   AS connects,
       sum(closes)     AS closes,
       sum(fails)      AS fails,
       sum(bytes_sent) AS bytes_sent,
       sum(bytes_recv) AS bytes_recv,
       strftime('%Y-%m-%dT%H:%M:%S', min(first_seen) / 1000, 'unixepoch') || printf('.%03dZ', min(first_seen) % 1000) AS first_seen,
       strftime('%Y-%m-%dT%H:%M:%S', max(last_seen) / 1000, 'unixepoch') || printf('.%03dZ', max(last_seen) % 1000) AS last_seen
FROM session_traffic
WHERE remote_ip IS NOT NULL
GROUP BY provider, remote_ip;

CREATE VIEW provider_ports AS
SELECT port_traffic.provider AS provider,
       port_traffic.port     AS remote_port,
       sum(port_traffic.connects)   AS connects,
       sum(port_traffic.closes)     AS closes,
       sum(port_traffic.fails)      AS fails,
       sum(port_traffic.bytes_sent) AS bytes_sent,
       sum(port_traffic.bytes_recv) AS bytes_recv,
       strftime('%Y-%m-%dT%H:%M:%S', min(port_traffic.first_seen) / 1000, 'unixepoch') || printf('.%03dZ', min(port_traffic.first_seen) % 1000) AS first_seen,
       strftime('%Y-%m-%dT%H:%M:%S', max(port_traffic.last_seen) / 1000, 'unixepoch') || printf('.%03dZ', max(port_traffic.last_seen) % 1000) AS last_seen
FROM session
CROSS JOIN port_traffic ON port_traffic.session = session.id
GROUP BY port_traffic.provider, port_traffic.port;

CREATE VIEW provider_processes AS
SELECT process.provider                AS provider,
       ifnull(process.comm, 'unknown') AS comm,
       process.pid                     AS pid,
       sum(connects)                   AS connects,
       sum(closes)                     AS closes,
       sum(fails)                      AS fails,
       sum(bytes_sent)                 AS bytes_sent,
       sum(bytes_recv)                 AS bytes_recv,
       strftime('%Y-%m-%dT%H:%M:%S', min(first_seen) / 1000, 'unixepoch') || printf('.%03dZ', min(first_seen) % 1000) AS first_seen,
       strftime('%Y-%m-%dT%H:%M:%S', max(last_seen) / 1000, 'unixepoch') || printf('.%03dZ', max(last_seen) % 1000) AS last_seen
FROM process_traffic
CROSS JOIN process ON process.id = process_traffic.process
WHERE process.session IN (SELECT id FROM session)
-- A pid alone is no identity: sessions of different hosts and boots share numbers.
GROUP BY process.provider, process.session, process.pid, process.start_time, process.comm;

CREATE VIEW provider_last_hour AS
SELECT provider,
       sum(connects)              AS connects,
       sum(closes)                AS closes,
       sum(fails)                 AS fails,
       ifnull(sum(bytes_sent), 0) AS bytes_sent,
       ifnull(sum(bytes_recv), 0) AS bytes_recv,
       strftime('%Y-%m-%dT%H:%M:%S', min(ts) / 1000, 'unixepoch') || printf('.%03dZ', min(ts) % 1000) AS first_seen,
       strftime('%Y-%m-%dT%H:%M:%S', max(ts) / 1000, 'unixepoch') || printf('.%03dZ', max(ts) % 1000) AS last_seen
FROM connection_events
WHERE ts >= (CAST(strftime('%s', 'now') AS INTEGER) - 3600) * 1000
  AND id >= (SELECT min(first_event) FROM activity WHERE hour >= CAST(strftime('%s', 'now') AS INTEGER) / 3600 - 1)
GROUP BY provider;

CREATE VIEW provider_hourly AS
SELECT provider,
       strftime('%Y-%m-%dT%H:00:00Z', hour * 3600, 'unixepoch') AS hour,
       sum(connects)   AS connects,
       sum(closes)     AS closes,
       sum(fails)      AS fails,
       sum(bytes_sent) AS bytes_sent,
       sum(bytes_recv) AS bytes_recv,
       strftime('%Y-%m-%dT%H:%M:%S', min(first_seen) / 1000, 'unixepoch') || printf('.%03dZ', min(first_seen) % 1000) AS first_seen,
       strftime('%Y-%m-%dT%H:%M:%S', max(last_seen) / 1000, 'unixepoch') || printf('.%03dZ', max(last_seen) % 1000) AS last_seen
FROM activity
WHERE first_seen IS NOT NULL
GROUP BY provider, activity.hour;

CREATE VIEW session_summary AS
SELECT activity.provider          AS provider,
       session.run_id             AS run_id,
       session.name               AS name,
       sum(activity.connects)     AS connects,
       sum(activity.closes)       AS closes,
       sum(activity.fails)        AS fails,
       sum(activity.bytes_sent)   AS bytes_sent,
       sum(activity.bytes_recv)   AS bytes_recv,
       strftime('%Y-%m-%dT%H:%M:%S', min(first_seen) / 1000, 'unixepoch') || printf('.%03dZ', min(first_seen) % 1000) AS first_seen,
       strftime('%Y-%m-%dT%H:%M:%S', max(last_seen) / 1000, 'unixepoch') || printf('.%03dZ', max(last_seen) % 1000) AS last_seen
FROM activity
JOIN session ON session.id = activity.session
WHERE activity.first_seen IS NOT NULL
GROUP BY session.id, activity.provider;
