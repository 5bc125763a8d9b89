"""The cloud engine: chat completions of an endpoint elsewhere, for what this box cannot answer in time."""
