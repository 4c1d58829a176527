-- name: create
INSERT INTO conversations (id, owner, created_at, metadata, next_position) VALUES ($1, $2, $3, $4, 0)

-- name: get
SELECT id, owner, created_at, metadata, locked_by FROM conversations WHERE id = $1 AND owner = $2

-- name: update
UPDATE conversations SET metadata = $3 WHERE id = $1 AND owner = $2

-- name: delete
DELETE FROM conversations WHERE id = $1 AND owner = $2

-- name: make_room
UPDATE conversations SET next_position = next_position + $3 WHERE id = $1 AND owner = $2

-- name: append_item
-- The places were made by make_room: $2 counts them, $3 is the one among them.
INSERT INTO conversation_items (conversation_id, position, item_id, item, size)
SELECT
    id, next_position - CAST($2 AS BIGINT) + CAST($3 AS BIGINT), CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($6 AS BIGINT)
FROM conversations WHERE id = $1
ON CONFLICT (conversation_id, item_id) DO NOTHING

-- name: get_item
SELECT i.item, i.position
FROM conversation_items i JOIN conversations c ON c.id = i.conversation_id
WHERE c.id = $1 AND c.owner = $2 AND i.item_id = $3

-- name: delete_item
DELETE FROM conversation_items WHERE conversation_id = $1 AND item_id = $2

-- name: total
SELECT COUNT(*) AS items, CAST(COALESCE(SUM(size), 0) AS BIGINT) AS size
FROM conversation_items WHERE conversation_id = $1

-- name: sizes_asc
SELECT size FROM conversation_items WHERE conversation_id = $1 AND position > $2 ORDER BY position LIMIT $3

-- name: sizes_desc
SELECT size FROM conversation_items WHERE conversation_id = $1 AND position < $2 ORDER BY position DESC LIMIT $3

-- name: page_asc
SELECT item FROM conversation_items WHERE conversation_id = $1 AND position > $2 ORDER BY position LIMIT $3

-- name: page_desc
SELECT item FROM conversation_items WHERE conversation_id = $1 AND position < $2 ORDER BY position DESC LIMIT $3

-- name: lock
UPDATE conversations SET locked_by = $3, lock_instance = $4
WHERE id = $1 AND owner = $2 AND (locked_by IS NULL OR locked_by = $3)

-- name: unlock
UPDATE conversations SET locked_by = NULL, lock_instance = NULL WHERE id = $1 AND locked_by = $2

-- name: unlock_all
UPDATE conversations SET locked_by = NULL, lock_instance = NULL WHERE lock_instance = $1
