import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;

/** Does what standard input says, line by line, with java.net.HttpURLConnection. */
public class WithHttpURLConnection {
    private static final byte[] NOTE =
        "{\"title\":\"a note\",\"product\":\"lucidchart\"}".getBytes(StandardCharsets.UTF_8);

    public static void main(String[] arguments) throws Exception {
        BufferedReader steps = new BufferedReader(new InputStreamReader(System.in));
        for (String step = steps.readLine(); step != null; step = steps.readLine()) {
            boolean get = step.equals("get");
            URL url = new URL(get ? "https://api.lucid.co/users/me/profile" : "https://api.lucid.co/documents");
            HttpURLConnection connection = (HttpURLConnection) url.openConnection();
            // A token that died long ago.
            connection.setRequestProperty("Authorization", "Bearer oauth2-stale-1f8c2b");
            if (!get) {
                connection.setRequestMethod("POST");
                connection.setRequestProperty("Content-Type", "application/json");
                connection.setDoOutput(true);
                connection.getOutputStream().write(NOTE);
            }
            // An error status is an exception here.
            try (InputStream answer = connection.getInputStream()) {
                System.out.println(step + " " + new String(answer.readAllBytes(), StandardCharsets.UTF_8));
            }
        }
    }
}
