"""The error raised by all use of Kafka."""


class KafkaClientError(ValueError):
    """Kafka can't be used as asked, because of a client property, the brokers or a topic.

    The message is one line: what is wrong and where, and then what to do about it.
    """

    def __init__(self, problem: str, remedy: str = ""):
        super().__init__(f"{problem}; {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy
