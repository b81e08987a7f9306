# Undoes what would outlive a test: `guard.sh FILE WORD` writes WORD to FILE once its standard input ends, or after 320 s.
echo ready
read -r -t 320
echo "$2" > "$1"
