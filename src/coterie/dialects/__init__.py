"""Pure: request models, translation, stream state machines and their validators."""
