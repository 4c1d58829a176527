-- A response whose time is up is as good as gone: every query that reads for an owner is given the time.

-- name: create
INSERT INTO responses (
    id, owner, status, created_at, expires_at, background, model, previous_response_id, conversation_id, instance,
    response, input, events, events_packed
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)

-- name: index_item
INSERT INTO response_items (response_id, item_id, is_output) VALUES ($1, $2, $3)
ON CONFLICT (response_id, item_id) DO NOTHING

-- name: measure
INSERT INTO response_sizes (response_id, object_size, input_size) VALUES ($1, $2, $3)

-- name: measure_anew
UPDATE response_sizes SET object_size = $2 WHERE response_id = $1

-- name: set_response
UPDATE responses SET status = $2, response = $3 WHERE id = $1 AND status IN ('queued', 'in_progress')

-- name: finish
UPDATE responses SET status = $2, response = $3, events = $4, events_packed = $5
WHERE id = $1 AND status IN ('queued', 'in_progress')

-- name: make_room
UPDATE conversations SET next_position = next_position + $2
WHERE id = (SELECT conversation_id FROM responses WHERE id = $1)
    AND owner = (SELECT owner FROM responses WHERE id = $1)

-- name: append_item
-- The places were made by make_room: $2 counts them, $3 is the one among them.
INSERT INTO conversation_items (conversation_id, position, item_id, item, size)
SELECT
    c.id, c.next_position - CAST($2 AS BIGINT) + CAST($3 AS BIGINT), CAST($4 AS TEXT), CAST($5 AS TEXT),
    CAST($6 AS BIGINT)
FROM conversations c JOIN responses r ON r.conversation_id = c.id AND r.owner = c.owner
WHERE r.id = $1
ON CONFLICT (conversation_id, item_id) DO NOTHING

-- name: unlock
UPDATE conversations SET locked_by = NULL, lock_instance = NULL WHERE locked_by = $1

-- name: unlock_all
UPDATE conversations SET locked_by = NULL, lock_instance = NULL WHERE locked_by IN ($LIST)

-- name: get
SELECT * FROM responses WHERE id = $1 AND owner = $2 AND (expires_at IS NULL OR expires_at > $3)

-- name: get_without_events
SELECT
    id, owner, status, created_at, expires_at, background, model, previous_response_id, conversation_id, instance,
    response, input, NULL AS events, 0 AS events_packed
FROM responses WHERE id = $1 AND owner = $2 AND (expires_at IS NULL OR expires_at > $3)

-- name: delete
DELETE FROM responses WHERE id = $1 AND owner = $2 AND (expires_at IS NULL OR expires_at > $3)

-- name: history
-- The chain that ends with $1, oldest first, of at most $4 + 1 links. A link without a response is missing.
WITH RECURSIVE chain (link, depth) AS (
    SELECT CAST($1 AS TEXT), 1
    UNION ALL
    SELECT r.previous_response_id, chain.depth + 1
    FROM chain JOIN responses r ON r.id = chain.link
    WHERE r.owner = $2 AND (r.expires_at IS NULL OR r.expires_at > $3)
        AND r.previous_response_id IS NOT NULL AND chain.depth <= $4
)
SELECT
    chain.link, r.id, r.owner, r.status, r.created_at, r.expires_at, r.background, r.model, r.previous_response_id,
    r.conversation_id, r.instance, r.response, r.input, NULL AS events, 0 AS events_packed
FROM chain LEFT JOIN responses r
    ON r.id = chain.link AND r.owner = $2 AND (r.expires_at IS NULL OR r.expires_at > $3)
ORDER BY chain.depth DESC

-- name: chain
-- The links of the same chain, without what they hold.
WITH RECURSIVE chain (link, depth) AS (
    SELECT CAST($1 AS TEXT), 1
    UNION ALL
    SELECT r.previous_response_id, chain.depth + 1
    FROM chain JOIN responses r ON r.id = chain.link
    WHERE r.owner = $2 AND (r.expires_at IS NULL OR r.expires_at > $3)
        AND r.previous_response_id IS NOT NULL AND chain.depth <= $4
)
SELECT chain.link, r.id, r.status, COALESCE(s.object_size + s.input_size, 0) AS size
FROM chain
LEFT JOIN responses r ON r.id = chain.link AND r.owner = $2 AND (r.expires_at IS NULL OR r.expires_at > $3)
LEFT JOIN response_sizes s ON s.response_id = r.id
ORDER BY chain.depth DESC

-- name: find_items
-- Where each item is: among those of equal ids an output, then the oldest.
SELECT item_id, response_id FROM (
    SELECT
        i.item_id, i.response_id,
        ROW_NUMBER() OVER (PARTITION BY i.item_id ORDER BY i.is_output DESC, r.created_at, r.id) AS choice
    FROM response_items i JOIN responses r ON r.id = i.response_id
    WHERE r.owner = $1 AND (r.expires_at IS NULL OR r.expires_at > $2) AND i.item_id IN ($LIST)
) AS found WHERE choice = 1

-- name: bodies
SELECT id, response, input FROM responses WHERE id IN ($LIST)

-- name: find_conversation_items
SELECT i.item_id, i.item
FROM conversation_items i JOIN conversations c ON c.id = i.conversation_id
WHERE c.owner = $1 AND i.item_id IN ($LIST)
ORDER BY c.created_at, c.id

-- name: unfinished
SELECT * FROM responses WHERE instance = $1 AND status IN ('queued', 'in_progress') ORDER BY created_at, id

-- name: unfinished_ids
SELECT id FROM responses WHERE instance = $1 AND status IN ('queued', 'in_progress') ORDER BY created_at, id

-- name: load
SELECT * FROM responses WHERE id = $1

-- name: expired
SELECT id FROM responses WHERE expires_at <= $1 LIMIT $2

-- name: purge
DELETE FROM responses WHERE id IN ($LIST)
