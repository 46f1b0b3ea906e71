import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;

/** Does what standard input says, line by line, with java.net.http.HttpClient, which speaks HTTP/2 where it can. */
public class WithHttpClient {
    private static final String NOTE = "{\"title\":\"a note\",\"product\":\"lucidchart\"}";

    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        BufferedReader steps = new BufferedReader(new InputStreamReader(System.in));
        for (String step = steps.readLine(); step != null; step = steps.readLine()) {
            HttpRequest.Builder request =
                step.equals("get")
                    ? HttpRequest.newBuilder(URI.create("https://api.lucid.co/users/me/profile"))
                    : HttpRequest.newBuilder(URI.create("https://api.lucid.co/documents"))
                        .header("Content-Type", "application/json")
                        .POST(BodyPublishers.ofString(NOTE));
            // A token that died long ago.
            request.header("Authorization", "Bearer oauth2-stale-1f8c2b");
            HttpResponse<String> response = client.send(request.build(), BodyHandlers.ofString());
            if (response.statusCode() >= 300) {
                throw new IllegalStateException(response.statusCode() + ": " + response.body());
            }
            System.out.println(step + " " + response.body());
        }
        System.exit(0);
    }
}
