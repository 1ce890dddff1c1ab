"""What Kafka accepts as the name of a topic."""

from typing import Annotated

from msgspec import Meta

from udfs.config.text import END

TopicName = Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,249}" + END, title="name of a topic")]
