/* Does what standard input says, line by line, with libcurl: built once with that of OpenSSL and once with that of
   GnuTLS. It says nothing of certificates, as most programs. */

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

static const char note[] = "{\"title\":\"a note\",\"product\":\"lucidchart\"}";

int main(void)
{
    char step[16], why[CURL_ERROR_SIZE] = "";
    struct curl_slist *fields = curl_slist_append(NULL, "Authorization: Bearer oauth2-stale-1f8c2b");
    CURL *curl = curl_easy_init();

    if (!curl || !fields || !curl_slist_append(fields, "Content-Type: application/json"))
        return 1;
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, fields);
    while (fgets(step, sizeof step, stdin)) {
        step[strcspn(step, "\n")] = '\0';
        if (strcmp(step, "get") == 0) {
            curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
            curl_easy_setopt(curl, CURLOPT_URL, "https://api.lucid.co/users/me/profile");
        } else {
            curl_easy_setopt(curl, CURLOPT_POSTFIELDS, note);
            curl_easy_setopt(curl, CURLOPT_URL, "https://api.lucid.co/documents");
        }
        printf("%s ", step);
        fflush(stdout);
        if (curl_easy_perform(curl) != CURLE_OK) { /* writes the content to standard output */
            fprintf(stderr, "%s\n", why);
            return 1;
        }
        printf("\n");
        fflush(stdout);
    }
    curl_easy_cleanup(curl);
    curl_slist_free_all(fields);
    return 0;
}
