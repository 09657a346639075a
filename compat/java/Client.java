import java.io.BufferedWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Apache Kafka's Java client as the tests use it.
 *
 * produce ADDR FILE TOPIC=CODEC…  sends the records of FILE to each topic, idempotently (the client's default)
 * consume ADDR DIR TOPIC…         writes every record of each topic to DIR/TOPIC, without a group
 * digest ADDR TOPIC               count, bytes and SHA-256 of each partition's values, a newline after each
 * group ADDR GROUP PROTOCOL TOPIC N  reads N records as a member of a group, commits and leaves; one value a line
 * admin ADDR                      creates, describes and deletes topics, and prints what it saw
 *
 * A record is a line: partition, timestamp, key, value, headers; hexadecimal, "-" for null; headers are
 * name=value, separated by commas. What is consumed has the offset after the partition.
 */
public class Client {
    static final HexFormat HEX = HexFormat.of();

    public static void main(String[] args) throws Exception {
        String addr = args[1];
        switch (args[0]) {
            case "produce" -> {
                List<String> lines = Files.readAllLines(Path.of(args[2]));
                for (int i = 3; i < args.length; i++) {
                    String[] topic = args[i].split("=");
                    produce(addr, lines, topic[0], topic[1]);
                }
            }
            case "consume" -> {
                for (int i = 3; i < args.length; i++) consume(addr, Path.of(args[2]), args[i]);
            }
            case "digest" -> digest(addr, args[2]);
            case "group" -> group(addr, args[2], args[3], args[4], Integer.parseInt(args[5]));
            case "admin" -> admin(addr);
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    static byte[] bytes(String hex) {
        return hex.equals("-") ? null : HEX.parseHex(hex);
    }

    static String text(byte[] b) {
        return b == null ? "-" : HEX.formatHex(b);
    }

    static void produce(String addr, List<String> lines, String topic, String codec) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", addr, "compression.type", codec, "linger.ms", "20",
            "delivery.timeout.ms", "60000", "request.timeout.ms", "20000");
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (String line : lines) {
                String[] f = line.split("\t", -1);
                var r = new ProducerRecord<>(topic, Integer.valueOf(f[0]), Long.valueOf(f[1]), bytes(f[2]), bytes(f[3]));
                for (String h : f[4].isEmpty() ? new String[0] : f[4].split(",")) {
                    String[] kv = h.split("=", 2);
                    r.headers().add(kv[0], bytes(kv[1]));
                }
                sent.add(producer.send(r));
            }
            for (var s : sent) s.get();
        }
    }

    /** Reads each partition of a topic from its start to the end that it has now. */
    static void read(String addr, String topic, Sink sink) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", addr, "auto.offset.reset", "earliest", "enable.auto.commit", "false",
            "isolation.level", "read_committed", "fetch.max.wait.ms", "100");
        try (var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> all = new ArrayList<>();
            for (var p : consumer.partitionsFor(topic)) all.add(new TopicPartition(topic, p.partition()));
            consumer.assign(all);
            consumer.seekToBeginning(all);
            Map<TopicPartition, Long> ends = consumer.endOffsets(all);
            long progress = System.nanoTime();
            while (all.stream().anyMatch(tp -> consumer.position(tp) < ends.get(tp))) {
                for (var r : consumer.poll(Duration.ofMillis(500))) {
                    sink.add(r);
                    progress = System.nanoTime();
                }
                if (System.nanoTime() - progress > Duration.ofMinutes(1).toNanos()) {
                    throw new IllegalStateException("no record for a minute; at " + all.stream().map(tp -> tp + " " + consumer.position(tp)).toList() + ", ends " + ends);
                }
            }
        }
    }

    interface Sink {
        void add(ConsumerRecord<byte[], byte[]> r) throws Exception;
    }

    static void consume(String addr, Path dir, String topic) throws Exception {
        Map<Integer, List<String>> lines = new TreeMap<>();
        read(addr, topic, r -> {
            StringBuilder headers = new StringBuilder();
            for (Header h : r.headers()) headers.append(headers.isEmpty() ? "" : ",").append(h.key()).append('=').append(text(h.value()));
            lines.computeIfAbsent(r.partition(), p -> new ArrayList<>()).add(r.partition() + "\t" + r.offset() + "\t" + r.timestamp() + "\t"
                + text(r.key()) + "\t" + text(r.value()) + "\t" + headers);
        });
        try (BufferedWriter out = Files.newBufferedWriter(dir.resolve(topic))) {
            for (var partition : lines.values()) for (String line : partition) out.append(line).append('\n');
        }
    }

    static class Sum {
        final MessageDigest sha = sha();
        long count;
        long bytes;

        static MessageDigest sha() {
            try {
                return MessageDigest.getInstance("SHA-256");
            } catch (java.security.NoSuchAlgorithmException e) {
                throw new IllegalStateException(e);
            }
        }
    }

    static void digest(String addr, String topic) throws Exception {
        Map<Integer, Sum> sums = new TreeMap<>();
        read(addr, topic, r -> {
            Sum s = sums.computeIfAbsent(r.partition(), p -> new Sum());
            s.sha.update(r.value());
            s.sha.update((byte) '\n');
            s.count++;
            s.bytes += r.value().length + 1;
        });
        sums.forEach((p, s) -> System.out.println(p + " " + s.count + " " + s.bytes + " " + HEX.formatHex(s.sha.digest())));
    }

    static void group(String addr, String group, String protocol, String topic, int n) throws Exception {
        Map<String, Object> config = new TreeMap<>(Map.of("bootstrap.servers", addr, "group.id", group, "auto.offset.reset", "earliest",
            "enable.auto.commit", "false", "fetch.max.wait.ms", "100", "session.timeout.ms", "10000", "max.poll.records", "7"));
        if (!protocol.isEmpty()) config.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer." + protocol);
        try (var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(topic));
            long begun = System.nanoTime();
            for (int got = 0; got < n; ) {
                for (var r : consumer.poll(Duration.ofMillis(500))) {
                    if (got++ < n) System.out.println(new String(r.value(), StandardCharsets.UTF_8));
                    if (got == n) consumer.commitSync(Map.of(new TopicPartition(topic, r.partition()), new org.apache.kafka.clients.consumer.OffsetAndMetadata(r.offset() + 1, "the last")));
                    else if (got < n) consumer.commitAsync(Map.of(new TopicPartition(topic, r.partition()), new org.apache.kafka.clients.consumer.OffsetAndMetadata(r.offset() + 1)), null);
                }
                if (System.nanoTime() - begun > Duration.ofMinutes(1).toNanos()) throw new IllegalStateException(got + " of " + n + " records after a minute");
            }
        }
    }

    /** The name of the error that the call ends with, or "ok". */
    static String outcome(Future<?> f) throws InterruptedException {
        try {
            f.get();
            return "ok";
        } catch (ExecutionException e) {
            return e.getCause().getClass().getSimpleName();
        }
    }

    static void admin(String addr) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", addr, "default.api.timeout.ms", "30000"))) {
            var cluster = admin.describeCluster();
            System.out.println("nodes " + cluster.nodes().get().size() + " controller " + (cluster.controller().get().id() >= 0) + " id " + !cluster.clusterId().get().isEmpty());

            var topic = new NewTopic("admin", 3, (short) 1).configs(Map.of("retention.ms", "123456789", "max.message.bytes", "2000000"));
            System.out.println("create " + outcome(admin.createTopics(List.of(topic)).all()));
            System.out.println("create again " + outcome(admin.createTopics(List.of(topic)).all()));
            System.out.println("bad name " + outcome(admin.createTopics(List.of(new NewTopic("a b", 1, (short) 1))).all()));
            System.out.println("too many replicas " + outcome(admin.createTopics(List.of(new NewTopic("replicas", 1, (short) 5))).all()));
            System.out.println("no partitions " + outcome(admin.createTopics(List.of(new NewTopic("none", 0, (short) 1))).all()));
            System.out.println("bad setting " + outcome(admin.createTopics(List.of(new NewTopic("setting", 1, (short) 1).configs(Map.of("retention.ms", "soon")))).all()));
            System.out.println("unknown setting " + outcome(admin.createTopics(List.of(new NewTopic("setting", 1, (short) 1).configs(Map.of("no.such.setting", "1")))).all()));
            System.out.println("listed " + admin.listTopics().names().get().contains("admin"));

            while (admin.describeTopics(List.of("admin")).allTopicNames().get().get("admin").partitions().stream().anyMatch(p -> p.leader() == null)) {
                Thread.sleep(20);
            }
            var described = admin.describeTopics(List.of("admin")).allTopicNames().get().get("admin");
            for (var p : described.partitions()) {
                System.out.println("partition " + p.partition() + " leader " + (p.leader().id() == 1) + " replicas " + p.replicas().size() + " isr " + p.isr().size());
            }
            System.out.println("topic id " + !described.topicId().equals(org.apache.kafka.common.Uuid.ZERO_UUID) + " internal " + described.isInternal());

            var resource = new ConfigResource(ConfigResource.Type.TOPIC, "admin");
            var settings = admin.describeConfigs(List.of(resource)).all().get().get(resource);
            for (String name : List.of("cleanup.policy", "max.message.bytes", "retention.ms", "segment.bytes")) {
                System.out.println(name + " " + settings.get(name).value() + " " + settings.get(name).source());
            }

            List<String> lines = new ArrayList<>();
            for (int i = 0; i < 10; i++) lines.add("0\t" + (1000 + 10 * (i == 5 ? 100 : i)) + "\t-\t" + "00".repeat(i) + "\t");
            produce(addr, lines, "admin", "none");
            var tp = new TopicPartition("admin", 0);
            for (var spec : Arrays.asList(OffsetSpec.earliest(), OffsetSpec.latest(), OffsetSpec.maxTimestamp(), OffsetSpec.forTimestamp(1035), OffsetSpec.forTimestamp(5000))) {
                var info = admin.listOffsets(Map.of(tp, spec)).all().get().get(tp);
                System.out.println("offset " + spec.getClass().getSimpleName() + " " + info.offset() + " " + info.timestamp());
            }

            System.out.println("delete " + outcome(admin.deleteTopics(List.of("admin")).all()));
            String after = "ok";
            for (int i = 0; i < 500 && after.equals("ok"); i++) {
                after = outcome(admin.describeTopics(List.of("admin")).allTopicNames());
                if (after.equals("ok")) Thread.sleep(20);
            }
            System.out.println("describe deleted " + after);
            System.out.println("delete again " + outcome(admin.deleteTopics(List.of("admin")).all()));
            System.out.println("create after delete " + outcome(admin.createTopics(List.of(topic)).all()));
        }
    }

    static {
        // Nothing but results on stdout; java's own charset never matters.
        System.setOut(new java.io.PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), true, StandardCharsets.UTF_8));
    }
}
