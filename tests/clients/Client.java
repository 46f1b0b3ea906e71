import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandler;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import java.util.zip.GZIPInputStream;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * The steps with java.net.http.HttpClient as it comes: BASE CA DIRECTORY VERSION. It offers HTTP/2 by ALPN over TLS, and by
 * Upgrade in the clear; VERSION (HTTP_1_1 or HTTP_2) is what it must get.
 */
public class Client {
    private static final long LARGE = 50 << 20;
    private static final int FIRST = 1 << 20;
    private static final int LAST = (2 << 20) - 1;

    private interface Step {
        void run() throws Exception;
    }

    private final String base;
    private final Path upload;
    private final HttpClient.Version version;
    private final HttpClient client;
    private final Map<String, Step> steps = new LinkedHashMap<>();

    public static void main(String[] arguments) throws Exception {
        System.exit(new Client(arguments).run() ? 0 : 1);
    }

    private Client(String[] arguments) throws Exception {
        base = arguments[0];
        upload = Path.of(arguments[2], "upload.bin");
        version = HttpClient.Version.valueOf(arguments[3]);
        client = HttpClient.newBuilder().sslContext(trusting(Path.of(arguments[1]))).build();
        steps.put("get", this::get);
        steps.put("post", this::post);
        steps.put("multipart", this::multipart);
        steps.put("chunked", this::chunked);
        steps.put("download", this::download);
        steps.put("gzip", this::gzip);
        steps.put("gzip-bytes", this::gzipBytes);
        steps.put("head", this::head);
        steps.put("no-content", this::noContent);
        steps.put("not-modified", this::notModified);
        steps.put("range", this::range);
        steps.put("events", this::events);
        steps.put("early", this::early);
    }

    /** Runs all steps; false where one of them failed. */
    private boolean run() {
        boolean well = true;
        for (Map.Entry<String, Step> step : steps.entrySet()) {
            try {
                step.getValue().run();
                System.out.println("ok " + step.getKey());
            } catch (Exception | AssertionError error) {
                well = false;
                System.out.println("failed " + step.getKey() + " " + error);
            }
        }
        return well;
    }

    private void get() throws Exception {
        same("content", text(ask(200, request("/get"))), "{\"title\":\"first\"}");
    }

    private void post() throws Exception {
        String note = "{\"size\":3,\"title\":\"ä note\"}";
        HttpRequest.Builder request = request("/post").header("Content-Type", "application/json");
        same("content", text(ask(200, request.POST(BodyPublishers.ofString(note)))), "{\"received\":" + note + "}");
    }

    private void multipart() throws Exception {
        String boundary = "a-boundary-in-its-place";
        String before = "--" + boundary + "\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\na file\r\n"
                + "--" + boundary + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"upload.bin\"\r\n"
                + "Content-Type: application/octet-stream\r\n\r\n";
        BodyPublisher form = BodyPublishers.concat(
                BodyPublishers.ofString(before),
                BodyPublishers.ofFile(upload),
                BodyPublishers.ofString("\r\n--" + boundary + "--\r\n"));
        HttpRequest.Builder request = request("/multipart");
        request.header("Content-Type", "multipart/form-data; boundary=" + boundary).POST(form);
        byte[] file = Files.readAllBytes(upload);
        same("form", text(ask(200, request)), "{\"file\":{\"length\":" + file.length
                + ",\"name\":\"upload.bin\",\"sha256\":\"" + hash(file) + "\"},\"title\":\"a file\"}");
    }

    private void chunked() throws Exception {
        byte[] beginning = Arrays.copyOf(Files.readAllBytes(upload), 5 << 20);
        BodyPublisher stream = BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(beginning));
        same("upload", text(ask(200, request("/chunked").POST(stream))), "{\"chunked\":true,\"length\":"
                + beginning.length + ",\"sha256\":\"" + hash(beginning) + "\"}");
    }

    private void download() throws Exception {
        HttpResponse<InputStream> response = ask(200, request("/download"), BodyHandlers.ofInputStream());
        same("length", field(response, "Content-Length"), "" + LARGE);
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        try (InputStream content = response.body()) {
            byte[] buffer = new byte[1 << 16];
            for (int length = content.read(buffer); length >= 0; length = content.read(buffer)) {
                digest.update(buffer, 0, length);
            }
        }
        same("hash", HexFormat.of().formatHex(digest.digest()), field(response, "X-Sha256"));
    }

    /** It decodes nothing by itself. */
    private void gzip() throws Exception {
        HttpResponse<byte[]> response = ask(200, request("/gzip").header("Accept-Encoding", "gzip"));
        same("coding", field(response, "Content-Encoding"), "gzip");
        ByteArrayOutputStream decoded = new ByteArrayOutputStream();
        try (InputStream content = new GZIPInputStream(new ByteArrayInputStream(response.body()))) {
            content.transferTo(decoded);
        }
        same("hash", hash(decoded.toByteArray()), field(response, "X-Sha256"));
    }

    private void gzipBytes() throws Exception {
        HttpResponse<byte[]> response = ask(200, request("/gzip-bytes").header("Accept-Encoding", "gzip"));
        same("hash", hash(response.body()), field(response, "X-Sha256"));
    }

    private void head() throws Exception {
        HttpResponse<byte[]> response = ask(200, request("/head").method("HEAD", BodyPublishers.noBody()));
        same("length", field(response, "Content-Length"), "" + LARGE);
        same("content", text(response), "");
    }

    private void noContent() throws Exception {
        same("content", text(ask(204, request("/no-content").DELETE())), "");
    }

    private void notModified() throws Exception {
        HttpResponse<byte[]> response = ask(304, request("/not-modified").header("If-None-Match", "\"first\""));
        same("tag", field(response, "ETag"), "\"first\"");
        same("content", text(response), "");
    }

    private void range() throws Exception {
        HttpRequest.Builder request = request("/range").header("Range", "bytes=" + FIRST + "-" + LAST);
        HttpResponse<byte[]> response = ask(206, request);
        same("range", field(response, "Content-Range"), "bytes " + FIRST + "-" + LAST + "/" + LARGE);
        same("hash", hash(response.body()), field(response, "X-Sha256"));
    }

    private void events() throws Exception {
        HttpResponse<InputStream> response = ask(200, request("/events"), BodyHandlers.ofInputStream());
        try (BufferedReader events = new BufferedReader(new InputStreamReader(response.body()))) {
            same("event", events.readLine(), "data: first");
            ask(204, request("/events/seen").POST(BodyPublishers.noBody()));
            for (String line : new String[] {"", "data: second", "", null}) {
                same("rest", events.readLine(), line);
            }
        }
    }

    private void early() throws Exception {
        HttpRequest.Builder request = request("/early").POST(BodyPublishers.ofFile(upload));
        same("content", text(ask(413, request)), "too much");
    }

    private HttpRequest.Builder request(String path) {
        return HttpRequest.newBuilder(URI.create(base + path)).timeout(Duration.ofMinutes(1));
    }

    private HttpResponse<byte[]> ask(int status, HttpRequest.Builder request) throws Exception {
        return ask(status, request, BodyHandlers.ofByteArray());
    }

    private <T> HttpResponse<T> ask(int status, HttpRequest.Builder request, BodyHandler<T> handler) throws Exception {
        HttpResponse<T> response = client.send(request.build(), handler);
        same("status", response.statusCode(), status);
        same("version", response.version(), version);
        return response;
    }

    private static String text(HttpResponse<byte[]> response) throws Exception {
        return new String(response.body(), "UTF-8");
    }

    private static String field(HttpResponse<?> response, String name) {
        return response.headers().firstValue(name).orElse(null);
    }

    private static String hash(byte[] content) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(content));
    }

    private static void same(String what, Object found, Object wanted) {
        if (!Objects.equals(found, wanted)) {
            throw new AssertionError(what + ": " + found + " instead of " + wanted);
        }
    }

    /** Trusts one certificate alone. */
    private static SSLContext trusting(Path file) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream certificate = Files.newInputStream(file)) {
            store.setCertificateEntry("proxy", CertificateFactory.getInstance("X.509").generateCertificate(certificate));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }
}
