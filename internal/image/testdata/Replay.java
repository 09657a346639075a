// Makes testdata/kafka.snapshot with Apache Kafka's own MetadataDelta and MetadataImage: each story's records,
// replayed one by one, written as a snapshot, sorted. With the jars of kafka-metadata 4.4.0 in lib/:
//
//   javac -cp 'lib/*' Replay.java
//   go test ./internal/image -run SnapshotsAreKafkas -samples -v | grep -E '^(story|[0-9a-f]+$)' | java -cp 'lib/*:.' Replay > kafka.snapshot
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.util.HexFormat;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.image.MetadataDelta;
import org.apache.kafka.image.MetadataImage;
import org.apache.kafka.image.MetadataProvenance;
import org.apache.kafka.image.writer.ImageWriterOptions;
import org.apache.kafka.image.writer.RecordListWriter;
import org.apache.kafka.metadata.MetadataRecordSerde;
import org.apache.kafka.server.common.ApiMessageAndVersion;

public class Replay {
    public static void main(String[] args) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in));
        MetadataImage image = null;
        long offset = -1;
        for (String line; (line = in.readLine()) != null; ) {
            if (line.startsWith("story")) {
                print(image);
                System.out.println(line);
                image = MetadataImage.EMPTY;
                continue;
            }
            byte[] bytes = HexFormat.of().parseHex(line);
            var record = MetadataRecordSerde.INSTANCE.read(new ByteBufferAccessor(ByteBuffer.wrap(bytes)), bytes.length);
            var delta = new MetadataDelta.Builder().setImage(image).build();
            delta.replay(record.message());
            image = delta.apply(new MetadataProvenance(++offset, 1, 0, true));
        }
        print(image);
    }

    static void print(MetadataImage image) {
        if (image == null) {
            return;
        }
        var writer = new RecordListWriter();
        image.write(writer, new ImageWriterOptions.Builder(image).setLossHandler(e -> {
            throw new RuntimeException(e);
        }).build());
        writer.records().stream().map(Replay::hex).sorted().forEach(System.out::println);
    }

    static String hex(ApiMessageAndVersion record) {
        var cache = new ObjectSerializationCache();
        ByteBuffer bytes = ByteBuffer.allocate(MetadataRecordSerde.INSTANCE.recordSize(record, cache));
        MetadataRecordSerde.INSTANCE.write(record, cache, new ByteBufferAccessor(bytes));
        return HexFormat.of().formatHex(bytes.array());
    }
}
