-- name: beat
INSERT INTO instances (name, seen_at) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at

-- name: notice
-- Who has something under way and was never seen is seen now, so that its time begins.
INSERT INTO instances (name, seen_at)
SELECT busy.name, CAST($1 AS BIGINT) FROM (
    SELECT instance AS name FROM responses WHERE status IN ('queued', 'in_progress')
    UNION
    SELECT lock_instance FROM conversations WHERE locked_by IS NOT NULL AND lock_instance IS NOT NULL
) AS busy
WHERE true
ON CONFLICT (name) DO NOTHING

-- name: gone
SELECT name FROM instances
WHERE seen_at <= $1 AND (
    name IN (SELECT instance FROM responses WHERE status IN ('queued', 'in_progress'))
    OR name IN (SELECT lock_instance FROM conversations WHERE locked_by IS NOT NULL AND lock_instance IS NOT NULL)
)
ORDER BY name

-- name: drop
DELETE FROM instances
WHERE seen_at <= $1
    AND name NOT IN (SELECT instance FROM responses WHERE status IN ('queued', 'in_progress'))
    AND name NOT IN (
        SELECT lock_instance FROM conversations WHERE locked_by IS NOT NULL AND lock_instance IS NOT NULL
    )
