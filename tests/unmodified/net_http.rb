# Does what standard input says, line by line, with net/http.

require "json"
require "net/http"

# A token that died long ago.
HEADERS = { "Authorization" => "Bearer oauth2-stale-1f8c2b", "Content-Type" => "application/json" }
NOTE = { title: "a note", product: "lucidchart" }

$stdout.sync = true
$stdin.each_line(chomp: true) do |step|
  response =
    if step == "get"
      Net::HTTP.get_response(URI("https://api.lucid.co/users/me/profile"), HEADERS)
    else
      Net::HTTP.post(URI("https://api.lucid.co/documents"), JSON.generate(NOTE), HEADERS)
    end
  response.value # raises where it is an error
  puts "#{step} #{response.body}"
end
