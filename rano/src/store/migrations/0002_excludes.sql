-- What a session left out by `--exclude-pattern`: the patterns as a JSON array, and what would have been seen without them.
ALTER TABLE session ADD COLUMN excludes TEXT NOT NULL DEFAULT '[]';
ALTER TABLE session ADD COLUMN excluded_processes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN excluded_connections INTEGER NOT NULL DEFAULT 0;

DROP VIEW sessions;
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
       kernel_skipped,
       excludes,
       excluded_processes,
       excluded_connections
FROM session;
