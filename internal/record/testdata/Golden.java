// Makes testdata/kafka.txt with Apache Kafka's own classes. With the jars of kafka-metadata,
// kafka-group-coordinator and kafka-storage 4.4.0 in lib/:
//
//   javac -cp 'lib/*' Golden.java
//   go test ./internal/record -run AndJSONAreKafkas -samples -v | grep ' {' | java -cp 'lib/*:.' Golden > kafka.txt
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.util.HexFormat;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.metadata.MetadataRecordSerde;
import org.apache.kafka.server.common.ApiMessageAndVersion;
import org.apache.kafka.server.common.MetadataVersion;

public class Golden {
    static final String METADATA = "org.apache.kafka.common.metadata.";
    static final String[] PACKAGES = {
        METADATA,
        "org.apache.kafka.common.message.",
        "org.apache.kafka.coordinator.group.generated.",
        "org.apache.kafka.server.log.remote.metadata.storage.generated.",
    };

    public static void main(String[] args) throws Exception {
        var json = new ObjectMapper();
        var in = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        var out = new PrintStream(System.out, true, "UTF-8");
        out.println("# Made by Apache Kafka 4.4.0's classes from the samples of golden_test.go: CLASS VERSION HEX JSON.");
        for (String line; (line = in.readLine()) != null; ) {
            String[] words = line.split(" ", 3); // CLASS VERSION JSON
            short version = Short.parseShort(words[1]);
            Class<?> converter = converter(words[0]);
            var message = (Message) converter.getMethod("read", JsonNode.class, short.class)
                .invoke(null, json.readTree(words[2]), version);
            boolean framed = message.getClass().getName().startsWith(METADATA);
            ByteBuffer bytes = framed ? frame(message, version) : MessageUtil.toByteBufferAccessor(message, version).buffer();
            Object back = converter.getMethod("write", message.getClass(), short.class).invoke(null, message, version);
            out.println(words[0] + " " + version + " " + hex(bytes) + " " + json.writeValueAsString(back));
        }
        for (MetadataVersion v : MetadataVersion.VERSIONS) {
            out.println("@level " + v.featureLevel() + " 0:" + v.registerBrokerRecordVersion()
                + " 3:" + v.partitionRecordVersion() + " 5:" + v.partitionChangeRecordVersion());
        }
    }

    static Class<?> converter(String name) throws ClassNotFoundException {
        for (String p : PACKAGES) {
            try {
                return Class.forName(p + name + "JsonConverter");
            } catch (ClassNotFoundException e) {
                // in another package
            }
        }
        throw new ClassNotFoundException(name);
    }

    static ByteBuffer frame(Message message, short version) {
        var record = new ApiMessageAndVersion((ApiMessage) message, version);
        var cache = new ObjectSerializationCache();
        ByteBuffer bytes = ByteBuffer.allocate(MetadataRecordSerde.INSTANCE.recordSize(record, cache));
        MetadataRecordSerde.INSTANCE.write(record, cache, new ByteBufferAccessor(bytes));
        return bytes.flip();
    }

    static String hex(ByteBuffer bytes) {
        byte[] copy = new byte[bytes.remaining()];
        bytes.duplicate().get(copy);
        return HexFormat.of().formatHex(copy);
    }
}
