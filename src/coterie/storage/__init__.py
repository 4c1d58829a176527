"""What outlasts a request: the database, stored responses, conversations, and the journal of running streams."""

from coterie.storage.conversations import Conversation, ConversationStore
from coterie.storage.database import Database, StorageError
from coterie.storage.journal import Journal, JournalFile
from coterie.storage.opening import open_database
from coterie.storage.responses import ResponseStore, StoredResponse

__all__ = [
    "Conversation", "ConversationStore", "Database", "Journal", "JournalFile", "ResponseStore", "StorageError",
    "StoredResponse", "open_database",
]  # fmt: skip
