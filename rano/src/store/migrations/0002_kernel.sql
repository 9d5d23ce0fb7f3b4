-- What the kernel programs lost.

ALTER TABLE session ADD COLUMN kernel_dropped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN kernel_unfollowed INTEGER NOT NULL DEFAULT 0;

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
       sqlite_dropped,
       kernel_dropped,
       kernel_unfollowed
FROM session;
