"""Python clients as the tests use them: kafka-python and confluent-kafka (librdkafka).

    client.py LIBRARY produce ADDR FILE TOPIC=CODEC...
    client.py LIBRARY consume ADDR DIR TOPIC...

LIBRARY is kafka-python or confluent. Records are lines as in java/Client.java:
partition, timestamp, key, value, headers; hexadecimal, "-" for null. What is
consumed has the offset after the partition.
"""

import pathlib
import sys
import time


def parse(line):
    partition, timestamp, key, value, headers = line.rstrip("\n").split("\t")
    pairs = [h.split("=", 1) for h in headers.split(",")] if headers else []
    return int(partition), int(timestamp), blob(key), blob(value), [(name, blob(v)) for name, v in pairs]


def blob(text):
    return None if text == "-" else bytes.fromhex(text)


def text(data):
    return "-" if data is None else data.hex()


def line(partition, offset, timestamp, key, value, headers):
    pairs = ",".join(f"{name}={text(v)}" for name, v in headers or [])
    return f"{partition}\t{offset}\t{timestamp}\t{text(key)}\t{text(value)}\t{pairs}\n"


class KafkaPython:
    """The pure Python client."""

    def __init__(self, addr):
        self.addr = addr

    def produce(self, topic, codec, records):
        from kafka import KafkaProducer

        producer = KafkaProducer(
            bootstrap_servers=self.addr,
            compression_type=None if codec == "none" else codec,
            acks="all",
            linger_ms=20,
            max_block_ms=30000,
        )
        sent = [
            producer.send(topic, value=value, key=key, headers=headers, partition=partition, timestamp_ms=timestamp)
            for partition, timestamp, key, value, headers in records
        ]
        producer.flush()
        for future in sent:
            future.get(timeout=60)
        producer.close()

    def consume(self, topic):
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=self.addr, enable_auto_commit=False, group_id=None)
        partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        seen, progress = [], time.monotonic()
        while any(consumer.position(tp) < ends[tp] for tp in partitions):
            if time.monotonic() - progress > 60:
                raise SystemExit(f"{topic}: no record for a minute; ends {ends}, {len(seen)} seen")
            for batch in consumer.poll(timeout_ms=500).values():
                progress = time.monotonic()
                seen.extend((r.partition, r.offset, r.timestamp, r.key, r.value, r.headers) for r in batch)
        consumer.close()
        return seen


class Confluent:
    """librdkafka, as most languages use it."""

    def __init__(self, addr):
        self.addr = addr

    def produce(self, topic, codec, records):
        from confluent_kafka import Producer

        failed = []
        producer = Producer({
            "bootstrap.servers": self.addr,
            "compression.codec": codec,
            "enable.idempotence": True,
            "linger.ms": 20,
            "message.timeout.ms": 60000,
        })
        for partition, timestamp, key, value, headers in records:
            producer.produce(
                topic,
                value=value,
                key=key,
                partition=partition,
                timestamp=timestamp,
                headers=headers,
                on_delivery=lambda err, _: failed.append(err) if err else None,
            )
            producer.poll(0)
        if producer.flush(60) or failed:
            raise SystemExit(f"{topic}: not delivered: {failed[:3]}")

    def consume(self, topic):
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.addr, "group.id": "unused", "enable.auto.commit": False})
        partitions = sorted(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
        ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30)[1] for p in partitions}
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
        seen, left = [], sum(ends.values())
        while left > 0:
            some = consumer.consume(min(left, 1000), timeout=60)
            if not some:
                raise SystemExit(f"{topic}: no record for a minute; ends {ends}, {left} left")
            for r in some:
                if r.error():
                    raise SystemExit(f"{topic}: {r.error()}")
                seen.append((r.partition(), r.offset(), r.timestamp()[1], r.key(), r.value(), r.headers()))
                left -= 1
        consumer.close()
        return seen


def main():
    library, verb, addr, where, *topics = sys.argv[1:]
    client = {"kafka-python": KafkaPython, "confluent": Confluent}[library](addr)
    if verb == "produce":
        with open(where, encoding="utf-8") as file:
            records = [parse(each) for each in file]
        for topic in topics:
            name, codec = topic.split("=")
            client.produce(name, codec, records)
        return
    for topic in topics:
        lines = [line(*r) for r in sorted(client.consume(topic), key=lambda r: r[:2])]
        pathlib.Path(where, topic).write_text("".join(lines), encoding="utf-8")


main()
